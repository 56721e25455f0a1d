"""Stages: none harms another, and what one saw is kept."""

import ast
import json
import os
import sys
import time
from contextlib import suppress

import pytest

from mmdet_dino_r1.lab.benchmark.stage_runner import Record, Stage, failures, run_stages

WRITES = (
    'import json, sys, time; from pathlib import Path;'
    'Path(sys.argv[1]).write_text(json.dumps(dict(figures=dict(seen=1), failed=[], parts={})));'
)


def stage(folder, name, then, seconds=20.0):
    """A stage that writes a figure, then does what is told."""
    path = str(folder / f'{name}.json')
    return Stage(name, [sys.executable, '-c', WRITES + then, path], seconds)


def test_a_failing_stage_does_not_stop_the_next(tmp_path):
    stages = [
        stage(tmp_path, 'raises', 'raise SystemExit("no memory")'),
        stage(tmp_path, 'crashes', 'import os; os.abort()'),
        stage(tmp_path, 'works', 'print(sys.argv[2:])'),
    ]
    told = []
    results = run_stages(stages, tmp_path, 60, lambda of: told.append(json.dumps(of)))
    assert {name: of['state'] for name, of in results.items()} == {
        'raises': 'failed with exit status 1',
        'crashes': 'failed with exit status -6',
        'works': 'ended',
    }
    assert all(of['figures'] == dict(seen=1) for of in results.values())
    assert 'no memory' in (tmp_path / 'raises.log').read_text()
    key, until = ast.literal_eval((tmp_path / 'works.log').read_text())
    assert key == '--until' and abs(float(until) - time.time() - 20) < 15, 'begun a moment ago'
    assert told[-1] == json.dumps(results)
    assert failures(results) == [
        'raises: failed with exit status 1',
        'crashes: failed with exit status -6',
    ]


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='reads /proc')
def test_a_stage_over_its_time_is_killed_with_all_it_started(tmp_path):
    child = tmp_path / 'child'
    hangs = (
        'import os, subprocess;'
        # in a group of its own, as the training's study
        'p = subprocess.Popen(["sleep", "60"], preexec_fn=os.setpgrp);'
        f'Path({str(child)!r}).write_text(str(p.pid)); time.sleep(60)'
    )
    start, states = time.monotonic(), []
    stages = [stage(tmp_path, 'hangs', hangs, 2), stage(tmp_path, 'next', '')]
    results = run_stages(stages, tmp_path, 60, lambda of: states.append(of['hangs']['state']))
    assert time.monotonic() - start < 15
    assert states[0] == 'running', 'told while it ran'
    assert results['hangs']['state'] == 'cut short after 2 s'
    assert results['hangs']['figures'] == dict(seen=1)
    assert results['next']['state'] == 'ended'
    with suppress(FileNotFoundError):  # gone, or a zombie that nobody waits for
        status = open(f'/proc/{child.read_text()}/stat').read()
        assert status.rpartition(')')[2].split()[0] in 'ZX'


def test_what_has_no_time_left_is_told(tmp_path):
    results = run_stages([stage(tmp_path, 'late', '')], tmp_path, 0.5, lambda of: None)
    assert results['late']['state'] == 'not begun: no time was left'
    assert failures(results) == ['late: not begun: no time was left']


def test_a_record_keeps_what_was_seen_before_a_part_failed(tmp_path, capsys):
    record = Record(tmp_path / 'record.json')
    with record.part('first'):
        record.add('loss', 1.5)
        raise RuntimeError('CUDA error: an illegal access\nand much more')
    with record.part('second'):
        record.add('steps', [1, 2])
        record.check(True, 'never told')
        record.check(False, 'too slow')
    found = json.loads((tmp_path / 'record.json').read_text())
    assert found['figures'] == dict(loss=1.5, steps=[1, 2])
    assert found['failed'] == ['first: RuntimeError: CUDA error: an illegal access', 'too slow']
    assert found['parts'].keys() == {'first', 'second'}
    assert 'and much more' in capsys.readouterr().err
