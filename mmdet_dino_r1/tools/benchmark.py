"""Speed and memory beside mmdet's Grounding DINO: ``mim run mmdet_dino_r1 benchmark [CONFIG]``.

Random images, random weights: nothing is downloaded, no data are needed but for ``--loader``.
Writes ``benchmark.json``, ``benchmark.md`` and, with ``--scaling``, ``scaling.png``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from mmengine.config import DictAction
from mmengine.registry import DefaultScope

from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, MMDET, NAMES, VIS_GDINO
from mmdet_dino_r1.lab.benchmark.report import assess_all, to_markdown
from mmdet_dino_r1.lab.benchmark.scaling import FACTORS
from mmdet_dino_r1.lab.benchmark.scaling_plot import ScalingPanel, draw_scaling
from mmdet_dino_r1.lab.benchmark.suite import SECTIONS, Suite
from mmdet_dino_r1.utils.environment import describe_environment

MODELS = {'vis_gdino': VIS_GDINO, 'dino_r1': DINO_R1, 'mmdet': MMDET}
DTYPES = ('float32', 'bfloat16', 'float16')


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='benchmark',
        description="Time VIS-GDINO, DINO-R1 and mmdet's Grounding DINO of the same size, in turn "
        'in one process, with random weights on random images.',
    )
    add = parser.add_argument
    add(
        'config',
        nargs='?',
        default='dino_r1_swin_t_coco.py',
        help='config file, or the bare name of a shipped one (default %(default)s)',
    )
    add(
        '--size',
        type=image_size,
        metavar='HxW',
        default=(800, 1333),
        help='of the images, in pixels (default 800x1333)',
    )
    add('--batch-size', type=positive, default=2, help='of training (default %(default)s)')
    add('--boxes', type=positive, default=10, help='per image (default %(default)s)')
    add('--classes', type=positive, default=20, help='in training (default %(default)s)')
    add('--device', help='cpu, cuda, cuda:1 (default: a GPU where there is one)')
    add(
        '--dtype',
        choices=DTYPES,
        default='float32',
        help='of autocast (default %(default)s: none); float16 trains without loss scaling here, '
        'which changes no timing',
    )
    add('--rounds', type=positive, default=3, help='medians are of so many (default %(default)s)')
    add('--threads', type=positive, help="of torch on the CPU (default: torch's)")
    add('--models', nargs='+', choices=MODELS, default=list(MODELS), help='default: all')
    add(
        '--checkpointing',
        action=argparse.BooleanOptionalAction,
        default=False,
        help="recompute activations as the config asks for, in mmdet's model as in ours "
        '(default: no model does)',
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--only', nargs='*', choices=SECTIONS, help='measure these alone, or none')
    which.add_argument('--skip', nargs='+', choices=SECTIONS, default=[], help='leave these out')
    add(
        '--scaling',
        nargs='*',
        type=scaling_factor,
        metavar='FACTOR[=POINTS]',
        help='grow one size at a time: queries, prompts, size (area), batch, boxes, all where none '
        'is named; boxes=10,100,400 chooses the points',
    )
    add('--memory', action='store_true', help='memory in --scaling on the CPU, too: slow')
    add(
        '--loader',
        action='store_true',
        help="time the config's training data, which must be there, and its pipeline",
    )
    add('--out', type=Path, default=Path('work_dirs/benchmark'), help='folder (%(default)s)')
    add('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in mim train')
    options = parser.parse_args(args)
    chosen = SECTIONS if options.only is None else options.only
    options.sections = [name for name in SECTIONS if name in chosen and name not in options.skip]
    options.models = [MODELS[name] for name in MODELS if name in options.models]
    options.scaling = {} if options.scaling is None else dict(options.scaling or _all_factors())
    if not (options.sections or options.scaling or options.loader):
        parser.error('nothing is left to measure')
    return options


def positive(text: str) -> int:
    """A whole number above zero.

    Raises:
        ValueError: it is none.
    """
    number = int(text)
    if number < 1:
        raise ValueError(f'{text} is not positive')
    return number


def image_size(text: str) -> tuple[int, int]:
    """Height and width from ``HxW``.

    Raises:
        ArgumentTypeError: it is not of this form.
    """
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if match is None:
        raise argparse.ArgumentTypeError(f'{text!r} is no HEIGHTxWIDTH, such as 800x1333')
    return int(match[1]), int(match[2])


def scaling_factor(text: str) -> tuple[str, tuple[float, ...]]:
    """A factor and its points, ascending, from ``FACTOR`` or ``FACTOR=1,2,4``.

    Raises:
        ArgumentTypeError: there is no such factor, or its points are no numbers.
    """
    factor, given, points = text.partition('=')
    if factor not in FACTORS:
        known = ', '.join(FACTORS)
        raise argparse.ArgumentTypeError(f'{factor!r} is not one of {known}')
    if not given:
        return factor, FACTORS[factor]
    kind = float if factor == 'size' else int
    try:
        values = tuple(sorted({kind(point) for point in points.split(',')}))
    except ValueError:
        values = ()
    if len(values) < 2 or values[0] <= 0:
        raise argparse.ArgumentTypeError(
            f'{text!r}: a factor needs two points or more, positive numbers, such as {factor}=1,2,4'
        )
    return factor, values


def _all_factors() -> list[tuple[str, tuple[float, ...]]]:
    return list(FACTORS.items())


def write(report: dict, folder: Path) -> list[Path]:
    """Write the report as JSON, Markdown and, where something was scaled, a figure.

    Args:
        report: ``environment``, ``settings``, ``sections``, ``targets`` and ``left_out``.
        folder: made where it is not there.

    Raises:
        OSError: something could not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / 'benchmark.json', folder / 'benchmark.md']
    paths[0].write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    paths[1].write_text(to_markdown(report), encoding='utf-8')
    if grown := report['sections'].get('scaling'):
        keys = ('unit', 'values', 'seconds', 'memory', 'inference_seconds')
        panels = [ScalingPanel(**{key: of.get(key) for key in keys}) for of in grown.values()]
        paths.append(folder / 'scaling.png')
        if not cv2.imwrite(str(paths[-1]), draw_scaling(panels)[..., ::-1]):
            raise OSError(f'Could not write {paths[-1]}.')
    return paths


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(options.threads or threads)
        with DefaultScope.overwrite_default_scope('mmdet'):
            suite = Suite(options)
            sections = suite.run()
        report = dict(
            environment=describe_environment(suite.device),
            settings=describe_settings(options),
            sections=sections,
            targets=assess_all(sections),
            left_out=suite.left_out,
        )
        paths = write(report, options.out)
    except (ValueError, OSError) as error:
        print(f'benchmark: {error}', file=sys.stderr)
        return 2
    finally:
        torch.set_num_threads(threads)
    print(to_markdown(report))
    print('\n'.join(f'wrote {path}' for path in paths))
    return 0


def describe_settings(options: argparse.Namespace) -> dict[str, str | int]:
    """What the options ask for, for the report's head."""
    return {
        'config': Path(options.config).name,
        'models': ', '.join(name for name in NAMES if name in options.models),
        'image': 'x'.join(map(str, options.size)),
        'batch size': options.batch_size,
        'boxes per image': options.boxes,
        'classes in training': options.classes,
        'dtype': options.dtype,
        'activation checkpointing': 'as the config' if options.checkpointing else 'none',
        'rounds': options.rounds,
    }


if __name__ == '__main__':
    sys.exit(main())
