"""Measured numbers beside the paper's: ``mim run mmdet_dino_r1 benchmark_table WORK_DIR ...``.

Reads ``<timestamp>/metrics/test.json`` below the folders and writes ``benchmark_table.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.lab.paper_table import BENCHMARKS, MODELS, format_table, read_all
from mmdet_dino_r1.utils.command_line import one_line_errors


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='benchmark_table', description="Table of measured numbers and the paper's."
    )
    parser.add_argument(
        'folders',
        nargs='+',
        metavar='WORK_DIR',
        help='work dirs of tests, or folders of such; or MODEL:BENCHMARK=WORK_DIR to say where '
        f'a result belongs (models: {", ".join(MODELS)}; benchmarks: {", ".join(BENCHMARKS)})',
    )
    parser.add_argument('--out', default='.', type=Path, help='folder to write to (default: .)')
    options = parser.parse_args(args)
    table = format_table(read_all(options.folders))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / 'benchmark_table.md'
    path.write_text(table, encoding='utf-8')
    print(f'{table}\nwrote {path}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
