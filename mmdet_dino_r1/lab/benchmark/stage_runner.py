"""Stages of a long check, each in a process of its own with a limit of time, and their report.

The report is on the disk at any moment, so what a stage saw is kept whatever becomes of it, and a
stage that fails, hangs or loses its device cannot harm the next.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from ...utils.atomic_write import atomic_write
from .report import to_markdown


class Report:
    """``path.json`` and ``path.md``, of one writer; without ``settings`` what is there goes on."""

    def __init__(self, path: Path, settings: Mapping | None = None) -> None:
        self.path = path
        self.settings, self.stages = settings, {}
        if settings is None:
            content = json.loads(path.with_suffix('.json').read_text(encoding='utf-8'))
            self.settings, self.stages = content['settings'], content['stages']

    def tell(self, stage: str, state: str, seconds: float) -> None:
        """Say how a stage stands, 'ended' where all is well, seconds after its begin."""
        empty = dict(figures={}, failed=[], parts={})
        self.stages.setdefault(stage, empty).update(state=state, seconds=round(seconds, 1))
        self.write()

    def write(self) -> None:
        """Write both files."""
        shown = {
            name: {
                'state': f'{of["state"]}, {of["seconds"]} s',
                'seconds of its parts': [f'{part} {took}' for part, took in of['parts'].items()],
            }
            | of['figures']
            for name, of in self.stages.items()
        }
        content = dict(settings=self.settings, stages=self.stages)
        text = to_markdown('GPU check', self.settings, shown, self.failures())
        atomic_write(self.path.with_suffix('.json'), json.dumps(content, default=str).encode())
        atomic_write(self.path.with_suffix('.md'), text.encode())

    def failures(self) -> list[str]:
        """What did not come to its end or did not hold; empty where all is well."""
        found = []
        for name, of in self.stages.items():
            states = [of['state']] if of['state'] not in ('ended', 'running') else []
            found += [f'{name}: {reason}' for reason in of['failed'] + states]
        return found


class Record:
    """What one stage sees, written into the report at once."""

    def __init__(self, report: Report, stage: str) -> None:
        self.report, self.seen = report, report.stages[stage]

    def add(self, name: str, figures: object) -> None:
        """Keep some figures, whatever JSON can hold; those of the same name are replaced."""
        self.seen['figures'][name] = figures
        self.report.write()

    def check(self, holds: bool, otherwise: str) -> None:
        """Note a failure unless something holds."""
        if not holds:
            self.seen['failed'].append(otherwise)
            self.report.write()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of a stage; the stage goes on where it raises, and notes how long it took."""
        start = time.monotonic()
        print(f'-- {name}', flush=True)
        try:
            yield
        except Exception as error:  # whatever it is, the parts after it are worth a try
            traceback.print_exc()
            reason = str(error).strip().partition('\n')[0][:300]
            self.check(False, f'{name}: {type(error).__name__}: {reason}')
        self.seen['parts'][name] = round(time.monotonic() - start, 1)
        self.report.write()


def run_stages(
    path: Path, commands: Mapping[str, tuple[Sequence[str], float]], seconds: float
) -> Report:
    """Run each stage's command within its seconds, all within ``seconds``; output: ``path.log``."""
    report, until = Report(path), time.monotonic() + seconds
    for name, (command, limit) in commands.items():
        limit, start = min(limit, until - time.monotonic()), time.monotonic()
        report.tell(name, 'running', 0)
        state = 'not begun: no time was left'
        if limit >= 1:
            with path.with_suffix('.log').open('ab') as log:
                log.write(f'==== {name}\n'.encode())
                log.flush()
                state = _run(command, limit, log)
        report = Report(path)  # the stage has written into it
        report.tell(name, state, time.monotonic() - start)
    return report


def _run(command: Sequence[str], limit: float, log: BinaryIO) -> str:
    """How a stage ended, in words."""
    # one that is cut short leaves temporary files behind
    with TemporaryDirectory(prefix='gpu_check_', ignore_cleanup_errors=True) as temporary:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(TMPDIR=temporary),
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=limit)
            return 'ended' if status == 0 else f'failed with exit status {status}'
        except subprocess.TimeoutExpired:
            return f'cut short after {limit:.0f} s'
        finally:
            with suppress(OSError):  # nothing is left of it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
