"""Make the shapes set of testing/shapes.py: ``mim run mmdet_dino_r1 generate_shapes``."""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.testing.shapes import SPLITS, ShapesConfig, generate_shapes
from mmdet_dino_r1.testing.shapes_drawing import DIFFICULTIES
from mmdet_dino_r1.utils.command_line import one_line_errors

# Command line name of each field of ShapesConfig, and what it says there.
_NUMBERS = dict(
    seed='another seed gives other classes and images',
    image_size='height and width in pixels',
    num_base_classes='classes to train on',
    num_novel_classes='classes that are only prompted',
    train_images='images of the base classes to train on',
    val_images='images of the base classes to test on',
    val_novel_images='images of the novel classes to test on',
    prompts_novel_images='reference images of the novel classes',
)


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='generate_shapes',
        description='Make the shapes set, a small detection benchmark in COCO format with base and '
        'novel classes.',
    )
    add = parser.add_argument
    add('root', nargs='?', default='data/shapes', help='folder of the set')
    for name, meaning in _NUMBERS.items():
        option, meaning = '--' + name.replace('_', '-'), f'{meaning} (default %(default)s)'
        add(option, type=int, default=getattr(ShapesConfig, name), help=meaning)
    add(
        '--difficulty',
        choices=sorted(DIFFICULTIES),
        default='standard',
        help="how hard it is drawn; 'hard': twins that one attribute tells apart, distractors, "
        'crowds, more changes of pose and light',
    )
    add(
        '--workers',
        type=int,
        default=min(8, os.cpu_count() or 1),
        help='processes that draw; the result does not depend on it',
    )
    add('--overwrite', action='store_true', help='replace a set made with other settings')
    return parser.parse_args(args)


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    start = time.perf_counter()
    told = 'already there, nothing to do.'

    def show_progress(done: int, total: int) -> None:
        nonlocal told
        told = f'made in {time.perf_counter() - start:.1f} s.'
        if done % 100 == 0 or done == total:
            print(f'\r{done}/{total} images', end='\n' * (done == total), file=sys.stderr)

    numbers = {name: getattr(options, name) for name in _NUMBERS}
    config = ShapesConfig(**numbers, difficulty=DIFFICULTIES[options.difficulty])
    root = generate_shapes(options.root, config, options.workers, options.overwrite, show_progress)
    _print_summary(root)
    print(f'{root}: {told}')
    return 0


def _print_summary(root: Path) -> None:
    """Print images, boxes and the rarest class of every split."""
    print(f'{"split":<14}{"images":>7}{"classes":>8}{"boxes":>7}{"fewest boxes of a class":>25}')
    for split in SPLITS:
        coco = json.loads((root / 'annotations' / f'{split}.json').read_text())
        boxes = Counter(ann['category_id'] for ann in coco['annotations'])
        fewest = min(boxes[cat['id']] for cat in coco['categories'])
        print(
            f'{split:<14}{len(coco["images"]):>7}'
            f'{len(coco["categories"]):>8}{len(coco["annotations"]):>7}'
            f'{fewest:>25}'
        )


if __name__ == '__main__':
    sys.exit(main())
