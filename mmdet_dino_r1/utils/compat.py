"""What the two OpenMMLab families and PyTorch's changes ask of us, in one place.

Everything here runs once, on ``import mmdet_dino_r1``, before any other module of the package; what
checkpoints ask of us is in ``safe_files``.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version

MIN_MMDET = '3.3.0'
# Before it, PyTorch's safe loader can itself be made to run code (CVE-2025-32434).
MIN_TORCH = (2, 6)
# Distributions that put files under the same import names.
FAMILIES = {
    'onedl': ('onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine'),
    'OpenMMLab': ('mmcv', 'mmdet', 'mmengine'),
}
WITHOUT_OPERATORS = ('mmcv-lite', 'onedl-mmcv-lite')

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


_NUMPY = (
    'pycocotools was built for another NumPy than the one installed. Remedy: `pip install '
    '--force-reinstall --no-deps --no-cache-dir pycocotools`.'
)


def check_environment() -> None:
    """Refuse to go on where mmdet, mmengine or mmcv cannot work, saying the remedy.

    Raises:
        ImportError: A package is missing, too old or cannot be loaded, mmcv lacks its operators,
            or distributions are installed over each other.
    """
    for name in ('torch', 'mmengine', 'mmcv', 'mmdet'):
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'mmdet_dino_r1 needs the Python package `{name}`. {_INSTALL}')
    _check_distributions()
    import torch  # the operators are linked against its libraries

    if tuple(map(int, torch.__version__.split('.')[:2])) < MIN_TORCH:
        raise ImportError(
            f'mmdet_dino_r1 needs torch >= {MIN_TORCH[0]}.{MIN_TORCH[1]}, found '
            f'{torch.__version__}: older ones cannot load any checkpoint safely. Install a newer '
            'torch, then mmcv again, which is compiled against it.'
        )
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
    try:
        importlib.import_module('pycocotools.mask')
    except (ImportError, ValueError) as error:  # ValueError: "numpy.dtype size changed"
        raise ImportError(f'mmdet_dino_r1: {_NUMPY} (Cause: {error})') from error

    from mmengine.utils import digit_version

    if digit_version(mmdet.__version__) < digit_version(MIN_MMDET):
        raise ImportError(
            f'mmdet_dino_r1 needs mmdet >= {MIN_MMDET}, found {mmdet.__version__}. {_INSTALL}'
        )


def _check_distributions() -> None:
    """Refuse distributions that were installed over each other; see ``check_environment``."""
    found = {family: _installed(names) for family, names in FAMILIES.items()}
    if all(found.values()):
        mixed = [name for names in found.values() for name in names]
        raise ImportError(
            f'Two families of the mm* packages are installed over each other: {", ".join(mixed)}. '
            f'Remedy: `pip uninstall -y {" ".join(mixed)}`, then one of them again. {_INSTALL}'
        )
    for name in _installed(WITHOUT_OPERATORS):
        raise ImportError(
            f'{name} is installed, an mmcv without operators, which mmdet needs. Remedy: `pip '
            f'uninstall -y {name}`, then mmcv again, even if it is there too. {_INSTALL}'
        )


def _installed(distributions: tuple[str, ...]) -> list[str]:
    """Those of the distributions that are installed."""

    def is_there(name: str) -> bool:
        try:
            return bool(version(name))
        except PackageNotFoundError:
            return False

    return [name for name in distributions if is_there(name)]


def name_package_to_mmengine() -> None:
    """Make ``_base_ = 'mmdet_dino_r1::configs/x.py'`` resolve: mmengine asks this table."""
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault('mmdet_dino_r1', 'mmdet_dino_r1')


def join_processes_without_gpu(launcher: str, device: str | None = None) -> None:
    """Join the processes that torchrun started, where they are to work on the CPU.

    mmengine's ``init_dist`` (``mmengine/dist/utils.py``) picks a CUDA device whatever the backend,
    so ``--launcher pytorch`` fails on a CPU. A runner leaves a process group alone that is there.

    Args:
        launcher: as on the command line; only 'pytorch' has anything to join here.
        device: as on the command line; None: CUDA where there is some.
    """
    import torch

    on_cpu = (device or '').startswith('cpu') or not torch.cuda.is_available()
    is_there = torch.distributed.is_available() and torch.distributed.is_initialized()
    if launcher == 'pytorch' and on_cpu and not is_there:
        torch.distributed.init_process_group('gloo')
