"""Where the shipped configs lie: in a checkout, an editable install or an installed wheel."""

from __future__ import annotations

from pathlib import Path

from ..utils.near_names import near_names

_PACKAGE = Path(__file__).resolve().parents[1]


def config_root() -> Path:
    """Folder of the shipped configs; FileNotFoundError in a package copied without them."""
    # in a wheel the first is the only one, and `configs` beside it may be somebody else's
    for folder in (_PACKAGE / '.mim' / 'configs' / 'configs', _PACKAGE.parent / 'configs'):
        if folder.is_dir():
            return folder.resolve()
    raise FileNotFoundError(
        f'mmdet_dino_r1 at {_PACKAGE} has no configs beside it; install it with pip.'
    )


def config_names() -> list[str]:
    """Names of all shipped configs, relative to their folder, ``_base_`` parts included."""
    root = config_root()
    return sorted(path.relative_to(root).as_posix() for path in root.rglob('*.py'))


def near_configs(name: str) -> list[str]:
    """Shipped configs (without the ``_base_`` parts) whose name is like ``name``, best first."""
    return near_names(Path(name).name, _whole_configs(), n=5)


def _whole_configs() -> list[str]:
    return [name for name in config_names() if not name.startswith('_base_/')]


def config_path(name: str) -> str:
    """Absolute path of a shipped config.

    For a config file outside the package, under whatever train script:
    ``_base_ = __import__('mmdet_dino_r1').config_path('dino_r1_swin_t_coco.py')``.

    Args:
        name: A name as in ``configs/``: 'dino_r1_swin_t_coco.py', with or without '.py', or a
            relative path such as '_base_/dino_r1_swin_t.py'; a leading 'configs/' is ignored.

    Raises:
        FileNotFoundError: No such config; the message lists near names.
    """
    relative = name.removeprefix('configs/')
    if not relative.endswith('.py'):
        relative += '.py'
    path = config_root() / relative
    if path.is_file():
        return str(path)
    near = near_configs(relative)
    hint = f'near names: {", ".join(near)}' if near else f'they are: {", ".join(_whole_configs())}'
    raise FileNotFoundError(f'mmdet_dino_r1 ships no config {name!r}; {hint}')
