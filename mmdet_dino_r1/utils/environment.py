"""What a benchmark or a study ran on."""

from __future__ import annotations

import platform
from pathlib import Path

import mmcv
import mmdet
import mmengine
import torch

from ..version import __version__


def describe_environment(device: torch.device) -> dict[str, str | int]:
    """Device, CPU, threads and versions.

    Args:
        device: where the models run.
    """
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


def cpu_model() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path('/proc/cpuinfo')
    if info.is_file():
        for line in info.read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()
