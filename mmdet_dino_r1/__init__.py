"""DINO-R1 as an MMDetection plugin; importing it registers everything under mmdet's registries.

The order matters: the checks speak first, in the user's words, before anything imports mmcv's
operators; the registering subpackages come last.
"""

from .utils.compat import check_environment, name_package_to_mmengine
from .version import __version__

check_environment()
name_package_to_mmengine()

from . import datasets, engine, evaluation, models  # noqa: E402
from .config.shipped import config_path  # noqa: E402
from .lab.query_view import hook  # noqa: E402, F401  registered with the rest
from .structures import PromptBank, load_prompt_bank, save_prompt_bank  # noqa: E402
from .utils.safe_files import register_safe_loaders  # noqa: E402

register_safe_loaders()


def __getattr__(name: str):
    """``mmdet_dino_r1.build_prompt_bank`` and the like, imported when they are asked for."""
    if name in ('apis', 'build_prompt_bank', 'DINOR1Inferencer', 'tune_prompt_bank'):
        import importlib

        apis = importlib.import_module(f'{__name__}.apis')
        return apis if name == 'apis' else getattr(apis, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


__all__ = [
    'DINOR1Inferencer',
    'PromptBank',
    '__version__',
    'build_prompt_bank',
    'config_path',
    'datasets',
    'engine',
    'evaluation',
    'load_prompt_bank',
    'models',
    'save_prompt_bank',
    'tune_prompt_bank',
]
