"""What a benchmark or a study ran on, and what a bug report tells of an environment.

Nothing is imported here before it is asked for: a bug report is wanted where imports fail.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..version import __version__
from .compat import FAMILIES, WITHOUT_OPERATORS, check_environment, installed

if TYPE_CHECKING:
    import torch

# Distributions that a bug report names where they are installed.
_NAMED = (
    *(name for family in FAMILIES.values() for name in family),
    *WITHOUT_OPERATORS,
    *('openmim', 'onedl-mim', 'torch', 'torchvision', 'transformers', 'numpy', 'opencv-python'),
    *('opencv-python-headless', 'pycocotools', 'lvis', 'safetensors', 'onnx', 'onnxruntime'),
)


def describe_environment(device: torch.device) -> dict[str, str | int]:
    """Device that the models run on, CPU, threads and versions."""
    import mmcv
    import mmdet
    import mmengine
    import torch

    name = 'CPU' if device.type == 'cpu' else torch.cuda.get_device_name(device)
    return {
        'device': name,
        'CPU': cpu_model(),
        'threads of torch': torch.get_num_threads(),
        'Python': platform.python_version(),
        'torch': torch.__version__,
        'mmdet': mmdet.__version__,
        'mmcv': mmcv.__version__,
        'mmengine': mmengine.__version__,
        'mmdet_dino_r1': __version__,
    }


def collect_environment() -> dict[str, str]:
    """What a bug report needs: ours first, then versions, then what mmengine collects.

    What cannot be loaded is told by its error, in the place of its version.
    """
    report = {
        'mmdet_dino_r1': __version__,
        'import': answer_or_error(lambda: check_environment() or 'accepted'),
        'mmcv._ext': answer_or_error(_operators),
        'CPU': cpu_model(),
    }
    return report | installed(_NAMED) | {'by mmengine': answer_or_error(_collected_by_mmengine)}


def answer_or_error(ask: Callable[[], object]) -> str:
    """What a function returns, or the error that it raises, as text."""
    try:
        return str(ask())
    except Exception as error:  # any: the rest of the report is wanted all the more
        return f'{type(error).__name__}: {error}'


def _collected_by_mmengine() -> str:
    from mmengine.utils.dl_utils import collect_env

    return '\n'.join(['', *(f'{name}: {value}' for name, value in collect_env().items())]).rstrip()


def _operators() -> str:
    import_module('torch')  # whose libraries they are linked against
    ext = import_module('mmcv._ext')
    return f'{ext.get_compiler_version()}, CUDA {ext.get_compiling_cuda_version()}'


def cpu_model() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path('/proc/cpuinfo')
    text = info.read_text(encoding='utf-8') if info.is_file() else ''
    found = re.search(r'^model name\s*:\s*(.+)', text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
