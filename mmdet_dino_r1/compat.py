"""What the two OpenMMLab families and PyTorch's changes ask of us, in one place.

Everything here runs once, on ``import mmdet_dino_r1``, before any other module of the package.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

MIN_MMDET = '3.3.0'

_INSTALL = (
    'Install one family of them: `pip install -r requirements/mminstall.txt` (onedl-*, the '
    'default) or `pip install -r requirements/mminstall-openmmlab.txt`; `make setup` in the '
    'repository does the former.'
)
_BUILD_OPS = (
    'mmcv is installed without its compiled operators (`mmcv._ext`), which happens when pip '
    'builds it in isolation, without torch, or when torch was changed afterwards. Remedy: '
    '`pip install setuptools wheel ninja psutil packaging`, then `MMCV_WITH_OPS=1 pip install '
    '--force-reinstall --no-deps --no-cache-dir --no-build-isolation onedl-mmcv==2.3.6` '
    "(`mmcv==2.1.0` beside OpenMMLab's own packages)."
)
_HEADLESS = (
    'OpenCV cannot be loaded; on servers it is libGL that is missing. Remedy: `pip uninstall -y '
    'opencv-python`, then `pip install --force-reinstall --no-deps '
    '"opencv-python-headless<4.13"`, which needs none; `make setup` does it where it must.'
)


def check_environment() -> None:
    """Refuse to go on where mmdet, mmengine or mmcv cannot work, saying the remedy.

    Raises:
        ImportError: A package is missing, too old or cannot be loaded, or mmcv lacks its
            operators.
    """
    for name in ('torch', 'mmengine', 'mmcv', 'mmdet'):
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'mmdet_dino_r1 needs the Python package `{name}`. {_INSTALL}')
    import torch  # noqa: F401  the operators are linked against its libraries

    try:
        importlib.import_module('cv2')
    except ImportError as error:
        raise ImportError(f'mmdet_dino_r1: {_HEADLESS} (Cause: {error})') from error
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise ImportError(f'mmdet_dino_r1: {_BUILD_OPS} (Cause: {error})') from error
    try:
        mmdet = importlib.import_module('mmdet')
    except AssertionError as error:  # mmdet 3.3.0 checks its neighbours with bare asserts
        raise ImportError(f'mmdet does not fit its neighbours: {error} {_INSTALL}') from error

    from mmengine.utils import digit_version

    if digit_version(mmdet.__version__) < digit_version(MIN_MMDET):
        raise ImportError(
            f'mmdet_dino_r1 needs mmdet >= {MIN_MMDET}, found {mmdet.__version__}. {_INSTALL}'
        )


def _history_buffer_method(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` while a checkpoint is read: HistoryBuffer's statistics only."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise ValueError(f'a checkpoint asked for {owner!r}.{name}, which is not a log statistic')
    return getattr(owner, name)


def allow_resume() -> None:
    """Let ``torch.load`` read mmengine's own checkpoints safely (torch >= 2.6).

    mmengine 0.10.7 reads checkpoints with torch's default, which since 2.6 is the safe loader; a
    resume then fails on the log history that mmengine itself saved. The classes of that history
    are listed as safe; the safe loading stays on. A ``HistoryBuffer`` names its statistics
    through ``getattr``, which is answered by a stand-in that knows those four alone.
    """
    import torch

    add_safe_globals = getattr(torch.serialization, 'add_safe_globals', None)
    if add_safe_globals is None:  # torch < 2.4: the safe loader is not the default there
        return
    import numpy as np
    from mmengine.logging import HistoryBuffer

    core = 'numpy._core' if np.lib.NumpyVersion(np.__version__) >= '2.0.0' else 'numpy.core'
    multiarray = importlib.import_module(f'{core}.multiarray')
    safe: list = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        type(np.dtype('float64')),
        type(np.dtype('int64')),
    ]
    for name in ('_reconstruct', 'scalar'):
        # A checkpoint names the module of the numpy that wrote it, which may be another.
        function = getattr(multiarray, name)
        safe += [(function, f'{path}.multiarray.{name}') for path in ('numpy._core', 'numpy.core')]
    safe.append((_history_buffer_method, 'builtins.getattr'))
    try:
        add_safe_globals(safe)
    except (AttributeError, TypeError):  # torch 2.4 and 2.5 take no (object, name) pairs
        return


def name_package_to_mmengine() -> None:
    """Make ``_base_ = 'mmdet_dino_r1::configs/x.py'`` resolve: mmengine asks this table."""
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault('mmdet_dino_r1', 'mmdet_dino_r1')


def join_processes_without_gpu(launcher: str) -> None:
    """Join the processes that torchrun started, on a machine without CUDA.

    mmengine's ``init_dist`` (``mmengine/dist/utils.py``) picks a CUDA device whatever the backend,
    so ``--launcher pytorch`` fails on a CPU. A runner leaves a process group alone that is there.

    Args:
        launcher: as on the command line; only 'pytorch' has anything to join here.
    """
    import torch

    is_there = torch.distributed.is_available() and torch.distributed.is_initialized()
    if launcher == 'pytorch' and not torch.cuda.is_available() and not is_there:
        torch.distributed.init_process_group('gloo')
