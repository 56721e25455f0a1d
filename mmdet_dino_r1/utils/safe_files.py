"""Checkpoints are read without running code from them (ours); in force on ``import mmdet_dino_r1``.

A checkpoint is a pickle, and a pickle may call any function. PyTorch's safe loader
(``weights_only=True``) makes tensors and plain values alone, but mmengine goes past it: 0.10.7
where ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` is set, onedl-mmengine 0.10.12 wherever that loader
refuses, and both for URLs. All that loads through mmengine (``load_from``, ``resume``,
``init_cfg``, mmdet's ``init_detector``) asks ``CheckpointLoader`` for the loader of a scheme. Its
own ``register_scheme`` replaces them here; ``torch.load`` itself stays as it is.

Names: filename = path or address, as it was given; map_location as of ``torch.load``.
"""

from __future__ import annotations

import builtins
import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from threading import RLock
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, get_torchvision_models

# What a file may ask for besides tensors and plain values is listed for the time of one load; the
# list is the process's, so one load at a time.
_LOCK = RLock()
_DTYPES = ('bool', *(f'{kind}{bits}' for kind in ('int', 'uint') for bits in (8, 16, 32, 64)))
_DTYPES += ('float16', 'float32', 'float64', 'complex64', 'complex128')
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

    Tensors, plain values, mmengine's log history and NumPy's numbers are loaded.

    Raises:
        FileNotFoundError: no such file.
        WeightsNotLoaded: the file asks for more than that, or is truncated, or no checkpoint.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint {path}.')
    with _safely(str(path), path):
        return torch.load(path, map_location=map_location, weights_only=True)


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
            with _safely(filename, cached):
                return torch.hub.load_state_dict_from_url(
                    filename, map_location=map_location, progress=os.isatty(0), weights_only=True
                )
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


@contextmanager
def _safely(name: str, path: Path) -> Iterator[None]:
    """Around one load: lists what mmengine saves, and says of a named file what was refused."""
    with _LOCK, torch.serialization.safe_globals(_safe_globals()):
        try:
            yield
        except pickle.UnpicklingError as error:
            raise WeightsNotLoaded(_refusal(name, path, str(error)), name) from error
        except (RuntimeError, EOFError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise WeightsNotLoaded(
                f'{name} is not a checkpoint that can be loaded: {reason} A file that is truncated '
                'or was cut short in downloading has to be fetched again.',
                name,
            ) from error


def _safe_globals() -> list[tuple]:
    """What mmengine's own checkpoints hold, with the names under which it is asked for.

    None of these can be led to anything else. A ``HistoryBuffer`` names its statistics through
    ``getattr``, which is answered by a stand-in that knows those four alone. Pairs, because a
    plain entry would be taken from a user's own list afterwards.
    """
    core = 'numpy._core' if np.lib.NumpyVersion(np.__version__) >= '2.0.0' else 'numpy.core'
    multiarray = __import__(f'{core}.multiarray', fromlist=['multiarray'])
    dtypes = {type(np.dtype(name)) for name in _DTYPES}
    return [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_buffer_method, 'builtins.getattr'),
        (ConfigDict, 'mmengine.config.config.ConfigDict'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
        *((dtype, f'{dtype.__module__}.{dtype.__name__}') for dtype in dtypes),
        # A file names the module of the numpy that wrote it, which may be another.
        *(
            (getattr(multiarray, name), f'{path}.multiarray.{name}')
            for name in ('_reconstruct', 'scalar')
            for path in ('numpy._core', 'numpy.core')
        ),
    ]


def _history_buffer_method(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` while a checkpoint is read: HistoryBuffer's statistics only."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'it asks for `getattr({owner!r}, {name!r})`.')
    return getattr(owner, name)


def _refusal(name: str, path: Path, error: str) -> str:
    """What a named file asked for, by what the safe loader said, and what can be done."""
    start = f'{name} is not a checkpoint that can be loaded safely'
    asked = _refused_globals(path, error)
    if not asked:
        reason = re.sub(r'.*WeightsUnpickler error:', '', error, flags=re.DOTALL).strip()
        return f'{start}: {reason.splitlines()[0] if reason else "it is no such file."}'
    start += f': it asks for {", ".join(f"`{one}`" for one in asked)}'
    if any(_runs_code(one) for one in asked):
        return f'{start}, which runs code and belongs in no checkpoint. Nothing was run; delete it.'
    modules = ', '.join(sorted({one.rpartition('.')[0] for one in asked} | {'torch'}))
    copy = f'{path.stem}_weights.pth'
    return (
        f'{start}, which is no tensor, number or text, and may run code as it is made. Ask for a '
        'file with the weights alone. If you trust who made this one, copy them out:\n\n'
        f'import {modules}\n'
        f'with torch.serialization.safe_globals([{", ".join(asked)}]):\n'
        f'    content = torch.load({str(path)!r}, weights_only=True, map_location="cpu")\n'
        'weights = content.get("state_dict", content.get("model", content))\n'
        f'torch.save(dict(state_dict=weights), {copy!r})\n'
    )


def _refused_globals(path: Path, error: str) -> list[str]:
    """Full names of what the file asks for and may not have; empty where none can be made out."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, OSError, RuntimeError, pickle.UnpicklingError):  # no zip file: an old one
        found = re.search(r'GLOBAL (\S+)', error)
        name = found[1] if found else ''
        return [name if '.' in name else f'builtins.{name}'] if name else []


def _runs_code(name: str) -> bool:
    """Whether a name is a means of attack; types among the builtins are none."""
    module, _, attribute = name.rpartition('.')
    if module == 'builtins':
        return not isinstance(getattr(builtins, attribute, None), type)
    return module.split('.')[0] in _RUNS_CODE
