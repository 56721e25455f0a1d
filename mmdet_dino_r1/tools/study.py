"""Train a grid of configs and seeds, and compare: ``mim run mmdet_dino_r1 study GRID --out DIR``.

GRID is a file as ``configs/studies/grqo_shapes.py`` (docs/study.md). What is done is not done
again, so the command may be stopped and repeated, and several may work in one folder.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.lab.study.conduct import NOT_MINE, chosen_runs, do_all, do_alone, write_report
from mmdet_dino_r1.lab.study.grid import load_grid
from mmdet_dino_r1.utils.command_line import one_line_errors, positive


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='study',
        description='Train a grid of configs and seeds, test every run in several ways, and write '
        'tables with paired differences and their 95 % intervals.',
        epilog='example: mim run mmdet_dino_r1 study studies/grqo_shapes.py --out work_dirs/study',
    )
    add = parser.add_argument
    add('grid', help='file of the grid, or the name of a shipped one (studies/grqo_shapes.py)')
    add('--out', type=Path, required=True, help='folder of the study')
    # --cells: the name until 0.8
    add('--variants', '--cells', nargs='+', metavar='VARIANT', help='only these')
    add('--seeds', type=positive, help='at most so many seeds of each variant')
    said = 'runs at the same time, which share the cores (default: one per core, one on a GPU)'
    add('--jobs', type=positive, help=said)
    add = parser.add_mutually_exclusive_group().add_argument
    add('--report', action='store_true', help='train nothing: tables and plots of what is there')
    add('--run', nargs=2, metavar=('VARIANT', 'SEED'), help='this one alone, in this process')
    return parser.parse_args(args)


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    out = options.out
    grid = load_grid(options.grid)
    runs = chosen_runs(grid, options.variants, options.seeds, options.run)
    try:
        if options.run:
            return 0 if do_alone(grid, runs[0], out) else NOT_MINE
        command = [sys.executable, '-m', 'mmdet_dino_r1.tools.study', options.grid]
        command += ['--out', str(out)]
        failed = [] if options.report else do_all(grid, runs, out, options.jobs, command)
    except KeyboardInterrupt:
        print('study: stopped; the same command goes on from here', file=sys.stderr)
        return 130
    write_report(grid, out, needed=not failed)
    return 1 if failed else 0


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    sys.exit(main())
