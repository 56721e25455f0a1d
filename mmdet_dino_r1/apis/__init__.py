"""What a program that uses the package calls."""

from .prompt_bank import build_prompt_bank

__all__ = ['build_prompt_bank']
