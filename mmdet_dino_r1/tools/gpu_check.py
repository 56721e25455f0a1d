"""Does everything work on this GPU, and how fast: ``mim run mmdet_dino_r1 gpu_check --out DIR``.

Needs no network, no data and no weights. Writes ``gpu_check.json``, ``gpu_check.md`` and
``gpu_check.log``, anew with every figure, so a run that is cut short still tells what it saw.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from mmdet_dino_r1.lab.benchmark.gpu_report import to_markdown
from mmdet_dino_r1.lab.benchmark.gpu_stages import STAGES, TINY, Sizes, run_stage
from mmdet_dino_r1.lab.benchmark.stage_runner import Stage, failures, run_stages
from mmdet_dino_r1.utils.atomic_write import write_whole

MINUTES = 8.0
# Of the time, what each stage may take at most; the last one gets what is left.
SHARES = {'agreement': 5 / 32, 'steps': 4 / 32, 'speed': 11 / 32, 'training': 1.0}
_LOG_TAIL = 60_000  # bytes of each stage's output that are kept


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='gpu_check',
        description='Compare the GPU with the CPU, take steps, run the benchmark, look where the '
        'GPU waits, and train for real; each in a process of its own with a limit of time.',
    )
    add = parser.add_argument
    add('--out', type=Path, required=True, help='folder of the report')
    add('--minutes', type=_positive, default=MINUTES, help='in all (default %(default)g)')
    add('--tiny', action='store_true', help='the same with tiny models, also without a GPU')
    add('--stages', nargs='+', choices=STAGES, default=list(STAGES), help='default: all')
    add('--run', choices=STAGES, help=argparse.SUPPRESS)  # this stage alone, in this process
    add('--until', type=float, help=argparse.SUPPRESS)  # in seconds of time.time()
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    if options.run:
        sizes = TINY if options.tiny else Sizes()
        # what it took to get here is gone
        run_stage(options.run, options.out, sizes, options.until - time.time())
        return 0
    try:
        if not options.tiny and not torch.cuda.is_available():
            raise ValueError('torch sees no CUDA device; --tiny runs the same, tiny, on a CPU')
        return check(options, ['gpu_check', *(sys.argv[1:] if args is None else args)])
    except (ValueError, OSError) as error:
        print(f'gpu_check: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'gpu_check: stopped; {options.out} has what was seen', file=sys.stderr)
        return 130


def check(options: argparse.Namespace, command: Sequence[str]) -> int:
    """Run the stages and report.

    Args:
        options: of the command line.
        command: as it was given.

    Returns:
        The exit status: 0 where every stage came to its end and nothing failed.

    Raises:
        OSError: the report cannot be written.
    """
    seconds, settings = 60 * options.minutes, dict(command=shlex.join(command))
    with tempfile.TemporaryDirectory(prefix='gpu_check_', ignore_cleanup_errors=True) as work:
        changed = partial(write, options.out, Path(work), settings)
        changed({})  # before anything takes its time
        this = [sys.executable, '-m', 'mmdet_dino_r1.tools.gpu_check', '--out', work]
        this += ['--tiny'] * options.tiny
        stages = [
            Stage(name, [*this, '--run', name], SHARES[name] * seconds)
            for name in STAGES
            if name in options.stages
        ]
        results = run_stages(stages, Path(work), seconds, changed)
    failed = failures(results)
    print((options.out / 'gpu_check.md').read_text(encoding='utf-8'))
    for line in failed:
        print(f'gpu_check: {line}', file=sys.stderr)
    return 1 if failed else 0


def write(out: Path, work: Path, settings: dict, results: dict[str, dict]) -> None:
    """Write report and log of what there is so far.

    Args:
        out: folder of the report, made where it is not there.
        work: folder of the stages' output.
        settings: of the run.
        results: of the stages, as far as there are.

    Raises:
        OSError: something cannot be written.
    """
    report = dict(settings=settings, stages=results)
    logs = [
        f'==== {name}\n'.encode() + (work / f'{name}.log').read_bytes()[-_LOG_TAIL:]
        for name in results
        if (work / f'{name}.log').exists()
    ]
    files = {
        'gpu_check.json': (json.dumps(report, indent=1) + '\n').encode(),
        'gpu_check.md': to_markdown(report).encode(),
        'gpu_check.log': b'\n'.join(logs),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(out / name, content)
    except OSError as error:
        raise OSError(
            f'--out {out} cannot be written: {error.strerror}. Choose another folder.'
        ) from error


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float('inf'):
        raise ValueError(f'{text} is not positive')
    return number


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    sys.exit(main())
