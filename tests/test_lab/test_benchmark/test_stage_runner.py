"""Stages: none harms another, and what one saw is kept."""

import json
import os
import sys
import time
from contextlib import suppress

from mmdet_dino_r1.lab.benchmark.stage_runner import Record, Report, run_stages

WRITES = (
    'import json, sys, time; from pathlib import Path; name = sys.argv[1];'
    'path = Path(sys.argv[2]); content = json.loads(path.read_text());'
    'content["stages"][name]["figures"]["seen"] = 1; path.write_text(json.dumps(content));'
)


def run(folder, seconds=60, limit=20.0, **then):
    """Stages that write a figure into the report, then do what is told."""
    path = folder / 'check'
    Report(path, dict(command='x')).write()
    commands = {
        name: ([sys.executable, '-c', WRITES + code, name, f'{path}.json'], limit)
        for name, code in then.items()
    }
    return run_stages(path, commands, seconds)


def test_a_failing_stage_does_not_stop_the_next(tmp_path):
    report = run(
        tmp_path,
        raises='raise SystemExit("no memory")',
        crashes='import os; os.abort()',
        works='import tempfile; tempfile.mkdtemp(); print("done", tempfile.gettempdir())',
    )
    assert {name: of['state'] for name, of in report.stages.items()} == {
        'raises': 'failed with exit status 1',
        'crashes': 'failed with exit status -6',
        'works': 'ended',
    }
    assert all(of['figures'] == dict(seen=1) for of in report.stages.values())
    assert json.loads((tmp_path / 'check.json').read_text())['stages'] == report.stages
    log = (tmp_path / 'check.log').read_text()
    assert '==== raises\nno memory' in log and '==== works\ndone' in log
    assert not os.path.exists(log.split()[-1]), 'temporary files are gone'
    failed = ['raises: failed with exit status 1', 'crashes: failed with exit status -6']
    assert report.failures() == failed
    assert all(f'- {line}' in (tmp_path / 'check.md').read_text() for line in failed)


def test_a_stage_over_its_time_is_killed_with_all_it_started(tmp_path):
    child = tmp_path / 'child'
    hangs = (
        'import subprocess; p = subprocess.Popen(["sleep", "60"]);'
        f'Path({str(child)!r}).write_text(str(p.pid)); time.sleep(60)'
    )
    start = time.monotonic()
    stages = run(tmp_path, limit=2, hangs=hangs, next='').stages
    assert time.monotonic() - start < 15
    assert stages['hangs']['state'] == 'cut short after 2 s'
    assert stages['hangs']['figures'] == dict(seen=1)
    assert stages['next']['state'] == 'ended'
    with suppress(FileNotFoundError):  # gone, or a zombie that nobody waits for
        status = open(f'/proc/{child.read_text()}/stat').read()
        assert status.rpartition(')')[2].split()[0] in 'ZX'


def test_what_has_no_time_left_is_told(tmp_path):
    report = run(tmp_path, seconds=0.5, late='')
    assert report.failures() == ['late: not begun: no time was left']


def test_a_record_keeps_what_was_seen_before_a_part_failed(tmp_path, capsys):
    report = Report(tmp_path / 'check', {})
    report.tell('stage', 'running', 0)
    assert report.failures() == []
    record = Record(report, 'stage')
    with record.part('first'):
        record.add('loss', 1.5)
        raise RuntimeError('CUDA error: an illegal access\nand much more')
    assert 'loss: 1.5' in (tmp_path / 'check.md').read_text(), 'told while it ran'
    with record.part('second'):
        record.add('steps', [1, 2])
        record.check(True, 'never told')
        record.check(False, 'too slow')
    found = Report(tmp_path / 'check').stages['stage']
    assert found['figures'] == dict(loss=1.5, steps=[1, 2])
    assert found['failed'] == ['first: RuntimeError: CUDA error: an illegal access', 'too slow']
    assert found['parts'].keys() == {'first', 'second'}
    assert 'and much more' in capsys.readouterr().err
