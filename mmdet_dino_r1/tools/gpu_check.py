"""Does everything work on this GPU, and how fast: ``mim run mmdet_dino_r1 gpu_check --out DIR``.

Needs no network, no data and no weights. Writes ``gpu_check.json``, ``gpu_check.md`` and
``gpu_check.log``, anew with every figure, so a run that is cut short still tells what it saw.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.registry import DefaultScope

from mmdet_dino_r1.lab.benchmark.gpu_stages import STAGES, TINY, Sizes
from mmdet_dino_r1.lab.benchmark.stage_runner import Record, Report, run_stages
from mmdet_dino_r1.utils.command_line import one_line_errors

NAME = 'gpu_check'  # of the report


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description='Compare the GPU with the CPU, run the GPU tests, take steps, run the '
        'benchmark, look where the GPU waits, detect in files, and train for real; each in a '
        'process of its own with a limit of time.',
    )
    add = parser.add_argument
    add('--out', type=Path, required=True, help='folder of the report')
    add('--minutes', type=_positive, default=8.0, help='in all (default %(default)g)')
    add('--tiny', action='store_true', help='the same with tiny models, also without a GPU')
    add('--stages', nargs='+', choices=STAGES, default=list(STAGES), help='default: all')
    add('--run', choices=STAGES, help=argparse.SUPPRESS)  # this stage alone, in this process
    return parser.parse_args(args)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float('inf'):
        raise ValueError(f'{text} is not positive')
    return number


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    path = options.out / NAME
    if options.run:
        with DefaultScope.overwrite_default_scope('mmdet'):
            stage, _ = STAGES[options.run]
            stage(Record(Report(path), options.run), TINY if options.tiny else Sizes())
        return 0
    if not options.tiny and not torch.cuda.is_available():
        raise ValueError('torch sees no CUDA device; --tiny runs the same, tiny, on a CPU')
    command = shlex.join([NAME, *(sys.argv[1:] if args is None else args)])
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        Report(path, dict(command=command)).write()  # before anything takes its time
        path.with_suffix('.log').write_text('')
    except OSError as error:
        told = f'--out {options.out} cannot be written: {error.strerror}. Choose another folder.'
        raise OSError(told) from error
    this = [sys.executable, '-m', 'mmdet_dino_r1.tools.gpu_check', '--out', str(options.out)]
    this += ['--tiny'] * options.tiny
    seconds = 60 * options.minutes
    commands = {
        name: ([*this, '--run', name], share * seconds)
        for name, (_, share) in STAGES.items()
        if name in options.stages
    }
    report = run_stages(path, commands, seconds)
    print(path.with_suffix('.md').read_text(encoding='utf-8'))
    for line in report.failures():
        print(f'{NAME}: {line}', file=sys.stderr)
    return 1 if report.failures() else 0


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f'{NAME}: stopped; the report has what was seen', file=sys.stderr)
        sys.exit(130)
