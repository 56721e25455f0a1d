"""Speed and memory beside mmdet's Grounding DINO: ``mim run mmdet_dino_r1 benchmark [CONFIG]``.

Random images, random weights: nothing is downloaded, and only ``--only loading`` needs data.
Writes ``benchmark.json`` and ``benchmark.md``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.registry import DefaultScope

from mmdet_dino_r1.config.loading import load_config
from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, LATE, MMDET, VIS_GDINO
from mmdet_dino_r1.lab.benchmark.report import assess_all, to_markdown
from mmdet_dino_r1.lab.benchmark.suite import SECTIONS, WITHOUT_DATA, Suite, open_device
from mmdet_dino_r1.lab.benchmark.workload import Workload
from mmdet_dino_r1.utils.command_line import add_cfg_options, one_line_errors, positive
from mmdet_dino_r1.utils.environment import describe_environment

MODELS = {'vis_gdino': VIS_GDINO, 'dino_r1': DINO_R1, 'late': LATE, 'mmdet': MMDET}
DTYPES = ('float32', 'bfloat16', 'float16')


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='benchmark',
        description="Time VIS-GDINO, DINO-R1, late prompting and mmdet's Grounding DINO of the "
        'same size, in turn in one process, with random weights on random images.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    config = 'config file, or the bare name of a shipped one'
    add('config', nargs='?', default='dino_r1_swin_t_coco.py', help=config)
    add('--size', type=_image_size, metavar='HxW', default='800x1333', help='of the images')
    add('--batch-size', type=positive, default=2, help='of training')
    add('--boxes', type=positive, default=10, help='per image')
    add('--classes', type=positive, default=20, help='in training')
    add('--device', help='cpu, cuda, cuda:1; None: a GPU where there is one')
    dtype = 'of autocast, float32: none; float16 trains without loss scaling here, as fast'
    add('--dtype', choices=DTYPES, default='float32', help=dtype)
    add('--rounds', type=positive, default=3, help='medians are of so many')
    add('--models', nargs='+', choices=MODELS, default=list(MODELS), help='of these')
    recompute = "recompute activations as the config asks for, in mmdet's model as in ours"
    add('--checkpointing', action='store_true', help=recompute)
    only = "measure these alone; loading is of the config's training data, which must be there"
    add('--only', nargs='+', choices=SECTIONS, default=WITHOUT_DATA, help=only)
    add('--out', type=Path, default=Path('work_dirs/benchmark'), help='folder of the report')
    add_cfg_options(parser)
    options = parser.parse_args(args)
    options.models = [MODELS[name] for name in MODELS if name in options.models]
    return options


def _image_size(text: str) -> tuple[int, int]:
    """Height and width from ``HxW``."""
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if match is None:
        raise argparse.ArgumentTypeError(f'{text!r} is no HEIGHTxWIDTH, such as 800x1333')
    return int(match[1]), int(match[2])


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    workload = Workload(*options.size, options.batch_size, options.classes, options.boxes)
    cfg, device = load_config(options.config, options.cfg_options), open_device(options.device)
    dtype, recompute = getattr(torch, options.dtype), options.checkpointing
    suite = Suite(
        cfg, workload, device, dtype, options.models, options.rounds, recompute, options.only
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        sections = suite.run()
    environment = describe_environment(device)
    settings = {
        'config': Path(options.config).name,
        'models': ', '.join(options.models),
        'image': 'x'.join(map(str, options.size)),
        'batch size': options.batch_size,
        'boxes per image': options.boxes,
        'classes in training': options.classes,
        'dtype': options.dtype,
        'activation checkpointing': 'as the config' if recompute else 'none',
        'rounds': options.rounds,
    }
    if suite.left_out:
        settings['left out, the GPU has too little memory'] = suite.left_out
    targets = assess_all(sections)
    shown = (dict(targets=targets) if targets else {}) | sections
    text = to_markdown('Benchmark', environment | settings, shown)
    report = dict(environment=environment, settings=settings, sections=sections, targets=targets)
    options.out.mkdir(parents=True, exist_ok=True)
    paths = options.out / 'benchmark.json', options.out / 'benchmark.md'
    paths[0].write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    paths[1].write_text(text, encoding='utf-8')
    print(text, *(f'wrote {path}' for path in paths), sep='\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
