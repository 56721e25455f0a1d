"""What the two OpenMMLab families and PyTorch's changes ask of us, in one place.

Runs once, on ``import mmdet_dino_r1``, before any other module of the package.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

MIN_MMDET = '3.3.0'
# Before it scaled_dot_product_attention takes no `scale`. It is the oldest that was tried, too, and
# the last for which OpenMMLab has ready-made wheels of mmcv 2.1.0.
MIN_TORCH = (2, 1)
# Distributions that put files under the same import names, those of OpenMMLab, in the same order.
FAMILIES = {
    'onedl': ('onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine'),
    'OpenMMLab': ('mmcv', 'mmdet', 'mmengine'),
}
WITHOUT_OPERATORS = ('mmcv-lite', 'onedl-mmcv-lite')

_INSTALL = (
    'Install one family of them: `MMCV_WITH_OPS=1 pip install --no-build-isolation -r '
    'requirements/mminstall.txt` (onedl-*, the default) or the same with '
    '`mminstall-openmmlab.txt`; `make setup` in the repository does the former.'
)
# Loaded in this order; remedy of each that cannot be.
_LOADED = {
    'cv2': 'OpenCV cannot be loaded; on servers it is libGL that is missing. Remedy: `pip '
    'uninstall -y opencv-python`, then `pip install --force-reinstall --no-deps '
    '"opencv-python-headless<4.13"`, which needs none; `make setup` does it where it must.',
    'mmengine.optim': 'mmengine cannot be loaded. It imports transformers wherever that is '
    'installed; beside PyTorch 2.1 it needs `pip install "transformers<4.56"`.',
    'mmcv._ext': 'mmcv is installed without its compiled operators (`mmcv._ext`), which happens '
    'when pip builds it in isolation, without torch, or when torch was changed afterwards. Remedy: '
    '`pip install setuptools wheel ninja psutil packaging`, then `MMCV_WITH_OPS=1 pip install '
    '--force-reinstall --no-deps --no-cache-dir --no-build-isolation onedl-mmcv==2.3.6` '
    "(`mmcv==2.1.0` beside OpenMMLab's own packages).",
    'mmdet': f'mmdet does not fit its neighbours. {_INSTALL}',
    'pycocotools.mask': 'pycocotools was built for another NumPy than the one installed. Remedy: '
    '`pip install --force-reinstall --no-deps --no-cache-dir pycocotools`.',
}


def check_environment() -> None:
    """Refuse to go on where mmdet, mmengine or mmcv cannot work, saying the remedy.

    Raises:
        ImportError: a package is missing, too old, broken, or installed over another.
    """
    _check_distributions()
    for name in ('torch', 'mmengine', 'mmcv', 'mmdet'):
        _check_module(name)
    import torch  # the operators are linked against its libraries

    if torch_version() < MIN_TORCH:
        raise ImportError(
            f'mmdet_dino_r1 needs torch >= {MIN_TORCH[0]}.{MIN_TORCH[1]}, found '
            f'{torch.__version__}: in older ones attention takes no scale. Install a newer torch, '
            'then mmcv again, which is compiled against it.'
        )
    try:
        torch.zeros(1).numpy()
    except RuntimeError as error:
        raise ImportError(
            f'mmdet_dino_r1: torch {torch.__version__} was built for NumPy 1. Remedy: `pip install '
            f'"numpy<2"`. (Cause: {error})'
        ) from error
    for name, remedy in _LOADED.items():
        try:
            importlib.import_module(name)
        # mmdet checks its neighbours with asserts; ValueError: "numpy.dtype size changed";
        # AttributeError: what an older torch has not
        except (ImportError, AssertionError, ValueError, AttributeError) as error:
            raise ImportError(f'mmdet_dino_r1: {remedy} (Cause: {error})') from error
    import mmdet
    from mmengine.utils import digit_version

    if digit_version(mmdet.__version__) < digit_version(MIN_MMDET):
        raise ImportError(
            f'mmdet_dino_r1 needs mmdet >= {MIN_MMDET}, found {mmdet.__version__}. {_INSTALL}'
        )


def _check_distributions() -> None:
    """Refuse distributions that were installed over each other; see ``check_environment``."""
    found = {family: installed(names) for family, names in FAMILIES.items()}
    if all(found.values()):
        # the fuller family stays, onedl of two that are equally full
        kept, other = sorted(FAMILIES, key=lambda family: -len(found[family]))
        pairs = zip(FAMILIES[kept], FAMILIES[other], strict=True)
        twins = {own: twin for own, twin in pairs if twin in found[other]}
        gone = [*found[other], *(own for own in twins if own in found[kept])]
        raise ImportError(
            'Two families of the mm* packages are installed over each other: '
            f'{", ".join([*found[kept], *found[other]])}. (`mim train mmdet` and `mim run mmdet` '
            f'do that beside onedl-mmdetection, if one lets them.) Remedy: `pip uninstall -y '
            f'{" ".join(gone)}`, then {_reinstall(twins, found[kept])}.'
        )
    for name in installed(WITHOUT_OPERATORS):
        raise ImportError(
            f'{name} is installed, an mmcv without operators, which mmdet needs. Remedy: `pip '
            f'uninstall -y {name}`, then mmcv again, even if it is there too. {_INSTALL}'
        )


def _check_module(name: str) -> None:
    """Refuse a module that is not there, or that something else passes for."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin:
        if spec.submodule_search_locations:
            return
        raise ImportError(f'The file {spec.origin} passes for the package `{name}`: rename it.')
    folders = spec.submodule_search_locations if spec else ()  # without an __init__.py
    hidden = ''.join(f' (or {folder} hides them: rename it)' for folder in folders)
    pairs = zip(*FAMILIES.values(), strict=True)
    if found := installed(next((pair for pair in pairs if name in pair), ())):
        again = _reinstall(found, found, '--force-reinstall ')
        raise ImportError(
            f'The files of {next(iter(found))} are gone, as after a `pip uninstall` of another '
            f'distribution of `{name}`{hidden}. Remedy: {again}.'
        )
    raise ImportError(f'mmdet_dino_r1 needs the Python package `{name}`. {_INSTALL}')


def _reinstall(names: Iterable[str], versions: Mapping[str, str], options: str = '') -> str:
    """The command that installs distributions again, alone and in the versions that are there."""
    pinned = [f'{name}=={versions[name]}' if name in versions else name for name in names]
    return (
        f'`MMCV_WITH_OPS=1 pip install {options}--no-deps --no-build-isolation {" ".join(pinned)}`'
    )


def installed(distributions: Sequence[str]) -> dict[str, str]:
    """Versions of those of the distributions that are installed."""
    found = {}
    for name in distributions:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def torch_version() -> tuple[int, int]:
    """Of PyTorch, such as (2, 13)."""
    import torch

    major, minor = torch.__version__.split('.')[:2]
    return int(major), int(minor)


def is_compiling() -> bool:
    """Whether PyTorch compiles or exports what asks; from 2.3 on it has this function itself."""
    import torch

    return (getattr(torch.compiler, 'is_compiling', None) or torch._utils.is_compiling)()


def name_package_to_mmengine() -> None:
    """Make ``_base_ = 'mmdet_dino_r1::configs/x.py'`` resolve: mmengine asks this table."""
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault('mmdet_dino_r1', 'mmdet_dino_r1')


def join_processes_without_gpu(launcher: str, device: str | None = None) -> None:
    """Join the processes that torchrun or srun started, where they are to work on the CPU.

    mmengine's ``init_dist`` picks a CUDA device whatever the backend, so ``--launcher pytorch`` and
    ``slurm`` fail on a CPU. A runner leaves a process group alone that is there. Of srun's
    processes on several machines, ``MASTER_ADDR`` has to name the first.
    """
    import torch

    on_cpu = (device or '').startswith('cpu') or not torch.cuda.is_available()
    is_there = torch.distributed.is_available() and torch.distributed.is_initialized()
    if launcher not in ('pytorch', 'slurm') or not on_cpu or is_there:
        return
    if launcher == 'slurm':
        names = dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID')
        os.environ |= {name: os.environ[of_slurm] for name, of_slurm in names.items()}
        os.environ.setdefault('MASTER_PORT', '29500')  # mmengine's
        if os.environ.get('SLURM_JOB_NUM_NODES', '1') == '1':
            os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    torch.distributed.init_process_group('gloo')
