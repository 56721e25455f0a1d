"""The command line of the speed benchmark; what it measures is tested with ``benchmark``."""

import json
import sys

import pytest
import torch
from conftest import CONFIGS, tiny_model_cfg
from mmdet.models.layers.transformer import dino_layers
from mmengine.config import Config

from mmdet_dino_r1.lab.benchmark import suite
from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, LATE, MMDET, NAMES, VIS_GDINO
from mmdet_dino_r1.lab.benchmark.measure import KEPT, PEAK, STEP
from mmdet_dino_r1.tools.benchmark import main, parse_args

TINY = '--size 64x96 --batch-size 1 --boxes 3 --classes 5 --device cpu --rounds 1'.split()


@pytest.fixture
def config(tiny_shapes, tmp_path):
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{tiny_shapes}/'
        loader.batch_size = 2
    cfg.model = tiny_model_cfg(dict())
    path = tmp_path / 'tiny.py'
    cfg.dump(path)
    return str(path)


@pytest.fixture(autouse=True)
def mmdet_as_it_was(monkeypatch):
    monkeypatch.setattr(dino_layers, 'coordinate_to_encoding', dino_layers.coordinate_to_encoding)
    monkeypatch.setitem(sys.modules, 'transformers', None)


def run(config, out, *args):
    status = main([config, *TINY, '--out', str(out), *args])
    return status, json.loads((out / 'benchmark.json').read_text()) if status == 0 else None


def test_end_to_end(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suite, 'process_memory', lambda name, *_: {PEAK: 2.0, KEPT: 1.0})
    out = tmp_path / 'out'
    status, report = run(config, out, '--only', *suite.SECTIONS)
    assert status == 0
    sections = report['sections']
    assert list(sections) == ['loading', 'memory', 'training', 'inference', 'bank']
    assert sections['training'].keys() == sections['memory'].keys() == set(NAMES)
    assert sections['inference'].keys() == {DINO_R1, LATE, MMDET}
    assert sections['bank'].keys() == {DINO_R1, LATE}
    assert sections['inference'][MMDET].keys() == {'80 classes, s', '1203 classes, s'}
    assert sections['loading'][STEP] > 0
    assert report['environment']['device'] == 'CPU' and report['environment']['torch']
    assert report['settings']['image'] == '64x96' and report['settings']['dtype'] == 'float32'
    assert len(report['targets']) == 8

    shown = capsys.readouterr()
    text = (out / 'benchmark.md').read_text()
    assert text in shown.out and 'no BERT' in text
    assert shown.err.count('benchmark: ') == 5
    assert 'init_weights' not in shown.out + shown.err


def test_one_section_of_one_model(config, tmp_path):
    status, report = run(config, tmp_path, '--only', 'bank', '--models', 'vis_gdino')
    assert status == 0 and report['sections'].keys() == {'bank'}
    assert not report['targets']


def test_too_little_memory_costs_only_what_needs_it(config, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(suite, 'training_figures', fail)
    monkeypatch.setattr(suite, 'inference_figures', fail)
    args = '--models dino_r1 --only training inference bank'
    status, report = run(config, tmp_path, *args.split())
    assert status == 0 and report['sections'].keys() == {'bank'}
    left_out = 'left out, the GPU has too little memory'
    assert report['settings'][left_out] == ['training', 'inference']
    assert f'- {left_out}: training, inference\n' in (tmp_path / 'benchmark.md').read_text()
    assert 'training: the GPU has too little memory' in capsys.readouterr().err


def test_mmdet_has_no_bank(config, tmp_path):
    status, report = run(config, tmp_path, '--only', 'bank', 'training', '--models', 'mmdet')
    assert status == 0 and report['sections'].keys() == {'training'}


def test_defaults():
    options = parse_args([])
    assert options.config == 'dino_r1_swin_t_coco.py' and options.size == (800, 1333)
    assert options.only == ('memory', 'training', 'inference', 'bank')
    assert options.models == list(NAMES) and not options.checkpointing


def test_loading_without_training_takes_no_step(config, tmp_path):
    status, report = run(config, tmp_path, '--only', 'loading')
    assert status == 0 and report['sections'].keys() == {'loading'}
    assert STEP not in report['sections']['loading']


def test_models_in_their_order():
    assert parse_args('--models mmdet vis_gdino'.split()).models == [VIS_GDINO, MMDET]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ('--size 800', "'800' is no HEIGHTxWIDTH"),
        ('--size 0x10', "'0x10' is no HEIGHTxWIDTH"),
        ('--models bert', "invalid choice: 'bert'"),
        ('--rounds 0', "'0' is not a number of at least 1"),
        ('--dtype int8', "invalid choice: 'int8'"),
        ('--only', 'expected at least one argument'),
        ('--only speed', "invalid choice: 'speed'"),
    ],
)
def test_a_wrong_command_line(args, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_args(args.split())
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ('--size 8x16 --only bank training', 'num_queries=10 but the image has only 4 feature'),
        ('--classes 128', "a caption of mmdet's Grounding DINO holds 127 names at most"),
        ('--device cuda:9', '--device cuda:9 is not there: torch sees'),
        ('--device gpu', '--device gpu is none; take cpu, cuda or cuda:1'),
        ('--device meta', 'only cpu and cuda can be timed'),
        ('--cfg-options model.type=GroundingDINO', 'has no model of type DINOR1'),
        ('--only loading --cfg-options train_dataloader.dataset.ann_file=no.json', 'no.json'),
    ],
)
def test_what_cannot_be_measured_is_told(config, tmp_path, capsys, args, message):
    assert run(config, tmp_path / 'out', *args.split())[0] == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith('benchmark: ') and message in told
    assert not (tmp_path / 'out').exists()


def test_many_classes_without_mmdet(config, tmp_path):
    args = '--classes 128 --boxes 128 --only training --models dino_r1'.split()
    assert run(config, tmp_path, *args)[0] == 0


def test_an_unknown_config(tmp_path, capsys):
    assert run('dino_r1_swin_x_coco.py', tmp_path)[0] == 2
    assert "ships no config 'dino_r1_swin_x_coco.py'; near names" in capsys.readouterr().err
