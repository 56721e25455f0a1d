"""Encode a prompt bank from annotated boxes: ``mim run mmdet_dino_r1 build_prompt_bank``.

Several processes share the images under
``torchrun --nproc_per_node N -m mmdet_dino_r1.tools.build_prompt_bank … --launcher pytorch``;
the bank is the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import is_main_process

from mmdet_dino_r1 import apis
from mmdet_dino_r1.structures import PromptBank
from mmdet_dino_r1.utils.command_line import (
    add_classes,
    add_launcher,
    add_model,
    add_out_file,
    launched,
    one_line_errors,
    refuse_existing,
)
from mmdet_dino_r1.utils.near_names import some


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='build_prompt_bank',
        description='Encode one prompt per class, the mean of a few exemplars, into a file. '
        "What is not given is as the config's PromptBankHook says.",
    )
    add_model(parser)
    add_out_file(parser, '.safetensors')
    add = parser.add_argument
    add('--ann', help='COCO- or LVIS-format file of the boxes')
    add('--img', help='image folder of --ann or --support')
    add('--support', help='published list of exemplars (JSON lines), taken as it is')
    add('--shots', type=int, help='most exemplars per class')
    add('--seed', type=int, help='another one chooses other boxes')
    add_classes(parser)
    add('--batch-size', type=int, help='images encoded at once')
    add('--workers', type=int, dest='num_workers', help='processes that read images')
    add(
        '--means-only',
        action='store_const',
        const=False,
        dest='keep_exemplars',
        help="leave each box's own embedding out: a smaller file, no spread and outliers",
    )
    skipped = 'leave out classes without a box'
    add('--skip-missing', action='store_const', const=True, help=skipped)
    add_launcher(parser)
    return parser.parse_args(args)


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    start = time.perf_counter()
    refuse_existing(options)
    asked = {k: v for k, v in vars(options).items() if k not in ('overwrite', 'launcher')}
    with launched('build_prompt_bank', options.launcher, options.device):
        bank = apis.build_prompt_bank(**asked, progress=is_main_process())
        if is_main_process():
            print(summary(bank, options.out, time.perf_counter() - start))
    return 0


def summary(bank: PromptBank, path: Path, seconds: float) -> str:
    """What a bank that was written to ``path`` in so many seconds was made from, in a few lines."""
    about, size = bank.provenance, path.stat().st_size / 1024
    boxes = f' of {about["num_boxes"]} boxes' if about.get('joint') else ''
    said = (
        f'{path}: {len(bank)} classes, {about["num_exemplars"]} exemplars{boxes} (fewest '
        f'{about["fewest"]}, most {about["most"]} of a class), from {about["num_images"]} of '
        f'{about["images_in_file"]} images; {size:.0f} KiB, {seconds:.1f} s'
    )
    if left_out := about.get('classes_left_out'):
        said += f'\n{len(left_out)} classes without a box were left out: {some(left_out)}'
    return said


if __name__ == '__main__':
    sys.exit(main())
