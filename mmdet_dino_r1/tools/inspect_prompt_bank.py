"""Look at a prompt bank: ``mim run mmdet_dino_r1 inspect_prompt_bank bank.safetensors``.

docs/prompt_banks.md says what the numbers mean.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.lab.prompt_banks.report import describe, format_description, write_contact_sheet
from mmdet_dino_r1.lab.prompt_banks.statistics import bank_statistics
from mmdet_dino_r1.structures import load_prompt_bank
from mmdet_dino_r1.utils.command_line import one_line_errors


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='inspect_prompt_bank',
        description='Provenance, confusable classes and outliers of a prompt bank, with a picture '
        'of its exemplars.',
    )
    add = parser.add_argument
    add('bank', type=Path, help='file that build_prompt_bank wrote')
    images = 'folder of the images the exemplars lie in (default: the one the bank names)'
    add('--images', type=Path, help=images)
    out = 'folder of contact_sheet.png (default: BANK_inspection beside the bank)'
    add('--out', type=Path, help=out)
    top = 'print the N most confusable classes and N outliers; 0 prints all (default %(default)s)'
    add('--top', type=int, default=50, metavar='N', help=top)
    add('--json', action='store_true', help='print one JSON object with all classes instead')
    options = parser.parse_args(args)
    bank = load_prompt_bank(options.bank)
    statistics = bank_statistics(bank)
    out = options.out or options.bank.with_name(f'{options.bank.stem}_inspection')
    sheet = out / 'contact_sheet.png'
    written, left_out = write_contact_sheet(bank, statistics, options.images, sheet)
    described = describe(bank, statistics)
    if options.json:
        described |= dict(files=[str(path) for path in written], left_out=left_out)
        print(json.dumps(described, indent=1, ensure_ascii=False))
        return 0
    print(format_description(described, options.top))
    for line in left_out:
        print(f'Left out: {line}')
    for path in written:
        print(f'wrote {path}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
