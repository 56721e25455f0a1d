"""The whole check on a CPU, tiny; how stages are kept apart is tested with ``stage_runner``."""

import json

import pytest
import torch

from mmdet_dino_r1.lab.benchmark import gpu_stages
from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, NAMES, VIS_GDINO
from mmdet_dino_r1.lab.benchmark.gpu_stages import STAGES
from mmdet_dino_r1.lab.benchmark.stage_runner import Record, Report
from mmdet_dino_r1.tools.gpu_check import main, parse_args
from mmdet_dino_r1.utils.compat import torch_version


@pytest.mark.slow
@pytest.mark.skipif(
    torch_version() < (2, 4), reason='fused AdamW and float16 on a CPU need PyTorch 2.4'
)
def test_to_its_end_on_a_cpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    status = main(['--tiny', '--minutes', '20', '--out', str(tmp_path)])
    shown = capsys.readouterr()
    assert status == 0, shown.err + (tmp_path / 'gpu_check.log').read_text()[-3000:]
    assert {path.name for path in tmp_path.iterdir()} == {
        'gpu_check.json',
        'gpu_check.md',
        'gpu_check.log',
    }
    stages = json.loads((tmp_path / 'gpu_check.json').read_text())['stages']
    assert list(stages) == list(STAGES)
    assert all(of['state'] == 'ended' and not of['failed'] for of in stages.values())
    figures = {name: of['figures'] for name, of in stages.items()}

    assert figures['agreement']['environment']['device'] == 'CPU'
    assert figures['tests']['GPU tests'].startswith('not run')
    assert [row['precision'] for row in figures['steps']['steps']] == [
        'bfloat16',
        'float32',
        'float16',
    ]
    speed = figures['speed']
    assert speed['bfloat16']['training'].keys() == speed['float32']['training'].keys()
    assert speed['bfloat16']['training'].keys() == set(NAMES)
    assert speed['bfloat16']['inference'][DINO_R1].keys() == {'5 classes, s', '130 classes, s'}
    assert len(speed[f'profile of {VIS_GDINO}']['heaviest operators']) == 10
    detect = figures['detect']['detect']
    assert 0 < detect['detect, images/s'] and 0 < detect['ratio']
    assert 0 < detect['share of time waiting'] < 1
    training = figures['training']
    killed = training['killed and resumed']
    assert killed['first step logged after that'] > killed['killed after step'] > 0
    assert training['training']['steps'] == 6 and 0 <= training['training']['AP'] <= 1

    text = (tmp_path / 'gpu_check.md').read_text()
    assert text in shown.out
    for expected in ('| gradients | 0 |', '#### inference', 'heaviest operators'):
        assert expected in text


def test_without_a_gpu_only_tiny(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert main(['--out', str(tmp_path / 'out')]) == 2
    told = capsys.readouterr().err
    assert told.startswith('gpu_check: ') and '--tiny' in told
    assert not (tmp_path / 'out').exists()


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert main(['--tiny', '--out', str(tmp_path / 'file')]) == 2
    told = capsys.readouterr().err
    assert told.startswith('gpu_check: --out ') and 'cannot be written' in told


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ('', 'the following arguments are required: --out'),
        ('--out x --minutes 0', "'0'"),
        ('--out x --minutes nan', "'nan'"),
        ('--out x --stages speeed', "invalid choice: 'speeed'"),
    ],
)
def test_a_wrong_command_line(args, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_args(args.split())
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_stage_that_cannot_work_is_told(tmp_path, capsys, monkeypatch):
    """Its process ends before it writes anything."""
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    (tmp_path / 'mmdet_dino_r1').mkdir()
    (tmp_path / 'mmdet_dino_r1' / '__init__.py').write_text('raise ImportError("no mmcv")')
    out = tmp_path / 'out'
    monkeypatch.chdir(tmp_path)
    assert main(['--tiny', '--stages', 'agreement', 'steps', '--out', str(out)]) == 1
    assert 'gpu_check: steps: failed with exit status 1' in capsys.readouterr().err
    assert 'no mmcv' in (out / 'gpu_check.log').read_text()
    assert '**Failed:**' in (out / 'gpu_check.md').read_text()


def test_a_card_that_is_lost_between_two_figures(tmp_path):
    """What was seen till then is reported, with the state of the stage."""
    report = Report(tmp_path / 'gpu_check', dict(command='x'))
    report.tell('steps', 'cut short after 60 s', 60.1)
    report.tell('speed', 'running', 60.1)
    record = Record(report, 'speed')
    record.add('bfloat16', dict(targets=[], memory={}))
    record.add('note', None)
    text = (tmp_path / 'gpu_check.md').read_text()
    assert '- steps: cut short after 60 s' in text
    assert 'running, 60.1 s' in text and '- note: –' in text


def test_the_gpu_tests_are_run_and_their_last_line_kept(tmp_path, capfd, monkeypatch):
    (tmp_path / 'tests').mkdir()
    tests = tmp_path / 'tests' / 'test_gpu.py'
    monkeypatch.setattr(gpu_stages, 'GPU_TESTS', tests)
    monkeypatch.setattr(gpu_stages, 'open_device', lambda name: torch.device('cuda'))
    report, (run, _) = Report(tmp_path / 'gpu_check', {}), STAGES['tests']
    report.tell('tests', 'running', 0)
    run(Record(report, 'tests'), gpu_stages.TINY)
    told = report.stages['tests']
    assert told['figures']['GPU tests'] == 'not run: the package was installed without its tests'
    tests.write_text('def test_card():\n    assert False\n')
    run(Record(report, 'tests'), gpu_stages.TINY)
    assert told['figures']['GPU tests'].startswith('1 failed in ')
    assert told['failed'] == ['the GPU tests failed']
    assert 'test_card' in capfd.readouterr().out
