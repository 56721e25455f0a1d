"""Stages of a long check, each in a process of its own with a limit of time.

What a stage saw is kept whatever becomes of it: its record is on the disk at any moment, and a
stage that fails, hangs or loses its device cannot harm the next.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...utils.atomic_write import write_whole

_TICK = 1.0  # seconds between looks at a record


class Record:
    """What a stage has seen, written anew with every figure.

    Args:
        path: of its file.

    Attributes:
        figures: by name, whatever JSON can hold.
        failed: what did not hold or raised, in words.
        parts: seconds that each took.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.figures: dict[str, Any] = {}
        self.failed: list[str] = []
        self.parts: dict[str, float] = {}

    def add(self, name: str, figures: object) -> None:
        """Keep some figures.

        Args:
            name: of them; what it had before is replaced.
            figures: whatever JSON can hold.
        """
        self.figures[name] = figures
        self._write()

    def check(self, holds: bool, otherwise: str) -> None:
        """Note a failure unless something holds.

        Args:
            holds: whether it does.
            otherwise: what to say if not.
        """
        if not holds:
            self.failed.append(otherwise)
            self._write()

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
        self.parts[name] = round(time.monotonic() - start, 1)
        self._write()

    def _write(self) -> None:
        content = dict(figures=self.figures, failed=self.failed, parts=self.parts)
        write_whole(self.path, json.dumps(content, default=str).encode())


@dataclass(frozen=True)
class Stage:
    """What is run.

    Attributes:
        name: of the stage; its record is ``NAME.json``, its output ``NAME.log``.
        command: gets ``--until T`` at its end, in seconds of ``time.time()``.
        seconds: at most.
    """

    name: str
    command: Sequence[str]
    seconds: float


def run_stages(
    stages: Sequence[Stage], folder: Path, seconds: float, changed: Callable[[dict], None]
) -> dict[str, dict]:
    """Run one stage after the other.

    Args:
        stages: in their order.
        folder: of records and logs.
        seconds: for all of them together.
        changed: gets all results whenever there is something new.

    Returns:
        By stage ``state`` in words ('ended' where all is well), ``seconds``, and its record's
        ``figures``, ``failed`` and ``parts``.
    """
    until = time.monotonic() + seconds
    results: dict[str, dict] = {}
    for stage in stages:
        limit = min(stage.seconds, until - time.monotonic())
        if limit < 1:
            results[stage.name] = _result(stage, folder, 'not begun: no time was left', 0.0)
        else:
            _run(stage, folder, limit, results, changed)
        changed(results)
    return results


def _run(
    stage: Stage, folder: Path, limit: float, results: dict, changed: Callable[[dict], None]
) -> None:
    start, seen = time.monotonic(), None
    record = folder / f'{stage.name}.json'
    with (folder / f'{stage.name}.log').open('wb') as log:
        process = subprocess.Popen(
            [*stage.command, '--until', f'{time.time() + limit:.0f}'],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            state = None
            while state is None:
                with suppress(subprocess.TimeoutExpired):
                    status = process.wait(timeout=_TICK)
                    state = 'ended' if status == 0 else f'failed with exit status {status}'
                passed = time.monotonic() - start
                if state is None and passed > limit:
                    state = f'cut short after {limit:.0f} s'
                stamp = record.stat().st_mtime_ns if record.exists() else None
                if state is None and stamp != seen:
                    seen = stamp
                    results[stage.name] = _result(stage, folder, 'running', passed)
                    changed(results)
        finally:
            kill_session(process.pid)
            process.wait()
    results[stage.name] = _result(stage, folder, state, time.monotonic() - start)


def _result(stage: Stage, folder: Path, state: str, seconds: float) -> dict:
    record = folder / f'{stage.name}.json'
    content = dict(figures={}, failed=[], parts={})
    if record.exists():
        content = json.loads(record.read_text())
    return dict(state=state, seconds=round(seconds, 1), **content)


def kill_session(leader: int) -> None:
    """End all processes of a session, those in groups of their own as well.

    Args:
        leader: process id of the one that began it.
    """
    for _ in range(3):  # one may be starting another meanwhile
        members = list(_members(leader))
        for member in members:
            with suppress(OSError):
                os.kill(member, signal.SIGKILL)
        if not members:
            break
    with suppress(OSError):  # without /proc
        os.killpg(leader, signal.SIGKILL)


def _members(leader: int) -> Iterator[int]:
    for stat in Path('/proc').glob('[0-9]*/stat'):
        with suppress(OSError, IndexError):
            state, _, _, session, *_ = stat.read_text().rpartition(')')[2].split()
            if int(session) == leader and state != 'Z':
                yield int(stat.parent.name)


def failures(results: dict[str, dict]) -> list[str]:
    """What did not come to its end or did not hold, stage by stage; empty where all is well.

    Args:
        results: of :func:`run_stages`.
    """
    found = []
    for name, of in results.items():
        reasons = of['failed'] + ([of['state']] if of['state'] not in ('ended', 'running') else [])
        found += [f'{name}: {reason}' for reason in reasons]
    return found
