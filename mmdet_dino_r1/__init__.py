"""DINO-R1 as an MMDetection plugin; importing it registers everything under mmdet's registries.

The order matters: the checks speak first, in the user's words, before anything imports mmcv's
operators; the registering subpackages come last.
"""

from .compat import allow_resume, check_environment, name_package_to_mmengine
from .version import __version__

check_environment()
name_package_to_mmengine()
allow_resume()

from . import datasets, engine, evaluation, models, visualization  # noqa: E402
from .shipped import config_path  # noqa: E402

__all__ = [
    '__version__',
    'config_path',
    'datasets',
    'engine',
    'evaluation',
    'models',
    'visualization',
]
