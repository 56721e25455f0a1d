"""Curves of trainings: ``mim run mmdet_dino_r1 plot_training WORK_DIR [WORK_DIR2 ...] --out FILE``.

They come from the log that mmengine keeps in ``WORK_DIR/<timestamp>/vis_data/scalars.json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.lab.figure import write_image
from mmdet_dino_r1.lab.training.curves import draw_runs
from mmdet_dino_r1.lab.training.log import read_run
from mmdet_dino_r1.utils.command_line import one_line_errors


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='plot_training', description='Losses, rewards, KL and AP of one or several trainings.'
    )
    add = parser.add_argument
    add('runs', nargs='+', type=Path, metavar='WORK_DIR', help='or one of its logs, scalars.json')
    add('--labels', help='names of the runs: SFT,GRQO (default: of the folders)')
    add('--out', type=Path, required=True, help='picture to write: *.png')
    options = parser.parse_args(args)
    names = [str(path) for path in options.runs]
    if len({path.name for path in options.runs}) == len(names):
        names = [path.name for path in options.runs]
    options.labels = options.labels.split(',') if options.labels else names
    if len(set(options.labels)) != len(options.runs):
        parser.error(f'--labels must give each of the {len(options.runs)} runs a name of its own')
    return options


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    logs = [read_run(path) for path in options.runs]
    figure = draw_runs(dict(zip(options.labels, logs, strict=True)))
    print(f'wrote {write_image(options.out, figure)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
