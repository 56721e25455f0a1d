"""Where 0.6 had ``load_torch_file``; until 0.8."""

from .utils.safe_files import load_torch_file

__all__ = ['load_torch_file']
