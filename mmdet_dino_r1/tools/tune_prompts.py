"""Tune prompts on annotated boxes: ``mim run mmdet_dino_r1 tune_prompts``.

Several processes share the work under
``torchrun --nproc_per_node N -m mmdet_dino_r1.tools.tune_prompts … --launcher pytorch``;
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
from mmdet_dino_r1.utils.progress import bar_of_steps


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='tune_prompts',
        description='Tune one prompt per class on annotated images, from the mean of its '
        'exemplars on; the detector stays as it is.',
    )
    add_model(parser)
    add_out_file(parser, '.safetensors')
    add = parser.add_argument
    add('--ann', help='COCO- or LVIS-format file with all boxes of the classes')
    add('--img', help='image folder of --ann')
    add('--bank', help='prompt bank to begin with; its other classes stay as they are')
    add('--shots', type=int, help='only the images of so many exemplars per class')
    add('--seed', type=int, help='another one chooses other exemplars and folds')
    add_classes(parser)
    add('--steps', type=int, help='most steps')
    add('--lr', type=float, help='learning rate')
    add('--folds', type=int, help='parts of the images, each held out once')
    fewest = 'a class with boxes on fewer images keeps its mean'
    add('--fewest-images', type=int, metavar='N', help=fewest)
    add('--cache-gib', type=float, metavar='GIB', help='most memory for features of the images')
    add('--half-cache', action='store_true', help='keep these features in half precision')
    add_launcher(parser)
    return parser.parse_args(args)


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    start = time.perf_counter()
    refuse_existing(options)
    given = {key: value for key, value in vars(options).items() if value is not None}
    asked = {key: given[key] for key in given if key not in ('overwrite', 'launcher')}
    with launched('tune_prompts', options.launcher, options.device):
        bank = apis.tune_prompt_bank(**asked, progress=bar_of_steps(is_main_process()))
        if is_main_process():
            print(summary(bank, options.out, time.perf_counter() - start))
    return 0


def summary(bank: PromptBank, path: Path, seconds: float) -> str:
    """What tuning gave, written to ``path`` in so many seconds, in a few lines."""
    about = bank.provenance['tuning']
    steps, losses = about['steps'], dict(about['held_out'])
    tuned, kept = (about['tuned'], about['kept']) if steps else ([], bank.class_names)
    said = (
        f'{path}: {len(bank)} classes, {len(tuned)} tuned on {about["images"]} images by {steps} '
        f'of at most {about["most_steps"]} steps; {seconds:.1f} s'
    )
    if losses:
        said += f'\nLoss on held-out images: {losses[0]:.4f} before, {losses[steps]:.4f} after'
    if kept:
        said += f'\n{len(kept)} classes stay as they began: {some(kept)}'
    return said


if __name__ == '__main__':
    sys.exit(main())
