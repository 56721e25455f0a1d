"""Join prompt banks: ``mim run mmdet_dino_r1 merge_prompt_banks A B --out C``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.structures import PromptBank, load_prompt_bank, save_prompt_bank
from mmdet_dino_r1.utils.command_line import add_out_file, one_line_errors, refuse_existing


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='merge_prompt_banks',
        description='Join prompt banks of different classes, made with the same weights, into one.',
    )
    parser.add_argument('banks', nargs='+', type=Path, help='banks to join, in this order')
    add_out_file(parser, '.safetensors')
    options = parser.parse_args(args)
    refuse_existing(options)
    bank = PromptBank.merge([load_prompt_bank(path) for path in options.banks])
    save_prompt_bank(bank, options.out)
    record = 'without a record of exemplars, which not all of the banks have'
    if bank.exemplars is not None:
        record = f'{len(bank.exemplars)} exemplars'
    print(f'{options.out}: {len(bank)} classes of {len(options.banks)} banks, {record}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
