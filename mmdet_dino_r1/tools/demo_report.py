"""Table, curves and detections of a demo: ``mim run mmdet_dino_r1 demo_report work_dirs/demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.lab.demo_report import write_report
from mmdet_dino_r1.utils.command_line import one_line_errors


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='demo_report', description='Table, curves and figure of a demo run.'
    )
    add = parser.add_argument
    add('root', nargs='?', default='work_dirs/demo', type=Path)
    add('--score-thr', type=float, default=0.25, help='of detections drawn')
    add('--rows', type=int, default=3, help='images drawn per split')
    options = parser.parse_args(args)
    table, files = write_report(options.root, options.score_thr, options.rows)
    print(table)
    for path in files:
        print(f'wrote {path}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
