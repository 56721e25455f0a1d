"""Checkpoints are read without running code from them (ours); in force on ``import mmdet_dino_r1``.

A checkpoint is a pickle, and a pickle may call any function. PyTorch's own safe loader
(``weights_only=True``) differs by version: before 2.6 a file could run code through it
(CVE-2025-32434), before 2.10 corrupt memory (CVE-2026-24747). mmengine goes past it: 0.10.7 where
``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` is set, onedl-mmengine 0.10.12 wherever it refuses, and both
for URLs. So files are read by ``checkpoint_file``. All that loads through mmengine (``load_from``,
``resume``, ``init_cfg``, mmdet's ``init_detector``) asks ``CheckpointLoader`` for the loader of a
scheme. Its own ``register_scheme`` replaces them here; ``torch.load`` itself stays as it is.

Names: filename = path or address, as it was given; map_location as of ``torch.load``.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.runner.checkpoint import CheckpointLoader, get_torchvision_models

from .checkpoint_file import read_checkpoint
from .checkpoint_values import Refused

# Modules of which no checkpoint needs anything; of builtins, only the types are innocent.
_RUNS_CODE = ('builtins', 'ctypes', 'importlib', 'nt', 'operator', 'os', 'posix', 'runpy', 'shutil')
_RUNS_CODE += ('socket', 'subprocess', 'sys')


class WeightsNotLoaded(ValueError):
    """A file that cannot be fetched, or is no checkpoint; what to do is in the message.

    Args:
        message: the file, the reason and the remedy.
        given: path or address as a config names it.
    """

    def __init__(self, message: str, given: str) -> None:
        super().__init__(message)
        self.given = given


def load_torch_file(path: str | Path, map_location: str | Callable | None = 'cpu'):
    """``torch.load`` for checkpoints of both families: what might run code is refused.

    Tensors, plain values, mmengine's log history and NumPy's numbers are loaded, from files of
    ``torch.save`` and from safetensors (as ``dict(state_dict=...)``).

    Raises:
        FileNotFoundError: no such file.
        WeightsNotLoaded: the file asks for more than that, or is truncated, or no checkpoint.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {path}.')
    return _load(path, map_location, str(path))


def register_safe_loaders() -> None:
    """Have mmengine load paths and URLs through the safe loader, and nothing from elsewhere."""
    loaders = dict.fromkeys(CheckpointLoader._schemes, load_from_elsewhere)
    loaders |= {'': load_from_local}
    loaders |= dict.fromkeys(('http://', 'https://'), load_from_http)
    loaders |= dict.fromkeys(('torchvision://', 'modelzoo://'), load_from_torchvision)
    for prefix, loader in loaders.items():
        CheckpointLoader.register_scheme(prefix, loader, force=True)


# mmengine's log takes a loader's name from its eleventh letter on: "load_from_".


def load_from_local(filename: str, map_location=None):
    """Load a path; see ``load_torch_file``."""
    return load_torch_file(filename, map_location)


def load_from_http(filename: str, map_location=None, given: str | None = None):
    """Load a URL, which rank 0 downloads for all; see ``load_torch_file``.

    ``given`` is what stands for it in the config.
    """
    cached = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(filename).path).name)

    def load():
        try:
            if not cached.exists():
                cached.parent.mkdir(parents=True, exist_ok=True)
                print(f'Downloading: "{filename}" to {cached}')
                torch.hub.download_url_to_file(filename, str(cached), progress=os.isatty(0))
            return _load(cached, map_location, filename)
        except WeightsNotLoaded as error:
            again = f'It was saved as {cached}; delete that file to have it fetched again.'
            raise WeightsNotLoaded(f'{error}\n{again}', given or filename) from error
        except (OSError, HTTPException) as error:
            reason = str(error).strip('<>').removeprefix('urlopen error ')
            raise WeightsNotLoaded(
                f'{filename} could not be fetched: {reason or type(error).__name__}.\nFetch it '
                'by hand, where there is internet, and give the path of the file instead, or put '
                f'it at {cached}',
                given or filename,
            ) from error

    rank = get_dist_info()[0]
    try:
        content = load() if rank == 0 else None
    finally:  # also where rank 0 refuses the file, which the others then do too
        barrier()
    return content if rank == 0 else load()


def load_from_torchvision(filename: str, map_location=None):
    """Load torchvision's weights, which most of mmdet's backbones start from, by name."""
    address = get_torchvision_models()[filename.split('://', 1)[1]]
    return load_from_http(address, map_location, given=filename)


def load_from_elsewhere(filename: str, map_location=None):
    """Raise ValueError: mmengine's other schemes would go past the safe loader."""
    raise ValueError(
        f'{filename}: checkpoints are loaded from paths, http(s):// and torchvision:// alone. '
        'Download the file and give its path.'
    )


def _load(path: Path, map_location, name: str):
    """What is in a file; of one named ``name``, what was refused and what can be done."""
    try:
        return read_checkpoint(path, map_location)
    except Exception as error:  # of any class: a damaged file makes no sense in many ways
        if isinstance(error, Refused) and error.asked:
            raise WeightsNotLoaded(_refusal(name, path, error.asked), name) from error
        reason = str(error) if isinstance(error, Refused) else f'{error} ({type(error).__name__})'
        line = ''.join(one for one in reason[:300].split('\n')[0] if one.isprintable())
        remedy = getattr(error, 'remedy', '') or (
            'A file that is truncated or was cut short in downloading has to be fetched again.'
        )
        raise WeightsNotLoaded(
            f'{name} is not a checkpoint that can be loaded: {line.rstrip(".")}. {remedy}', name
        ) from error


def _refusal(name: str, path: Path, asked: frozenset[str]) -> str:
    """What a named file asked for and may not have, and what can be done."""
    listed = ', '.join(f'`{one}`' for one in sorted(asked)[:20])
    start = f'{name} is not a checkpoint that can be loaded safely: it asks for {listed}'
    if any(_runs_code(one) for one in asked):
        return f'{start}, which runs code and belongs in no checkpoint. Nothing was run; delete it.'
    return (
        f'{start}, which is no tensor, number or text, and may run code as it is made. Ask for a '
        'file with the weights alone. If you trust who made this one, copy them out; this runs '
        'what is in the file:\n\n'
        'import torch\n'
        f'content = torch.load({str(path)!r}, weights_only=False, map_location="cpu")\n'
        'weights = content.get("state_dict", content.get("model", content))\n'
        f'torch.save(dict(state_dict=weights), {f"{path.stem}_weights.pth"!r})\n'
    )


def _runs_code(name: str) -> bool:
    """Whether a name is a means of attack; types among the builtins are none."""
    module, _, attribute = name.rpartition('.')
    if module == 'builtins':
        return not isinstance(getattr(builtins, attribute, None), type)
    return module.split('.')[0] in _RUNS_CODE
