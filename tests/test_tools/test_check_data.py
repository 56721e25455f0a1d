"""What `mim run mmdet_dino_r1 check_data CONFIG` prints, and its exit status."""

import json

import pytest
from test_checks.test_data import coco_file, config

from mmdet_dino_r1.checks import image_check
from mmdet_dino_r1.tools import check_data


@pytest.fixture
def root(tmp_path):
    for split in ('train', 'val'):
        coco_file(tmp_path, split)
    return tmp_path


@pytest.fixture
def path(root):
    path = root / 'mine.py'
    config(root).dump(path)
    return path


def test_all_is_well(path, root, capsys):
    assert check_data.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'there    {root}/train.json  (train_dataloader.dataset.dataset, ann_file)'
    assert len([line for line in lines if line.startswith('there')]) == 4
    assert lines[4:7] == [
        f'{root}/train.json (train, prompts)',
        '  3 images, 0 without boxes; 9 boxes, 0 of them crowds; 3 classes',
        "  fewest boxes: 'bolt' 3, 'nut' 3, 'gear' 3",
    ]
    assert lines[7] == f'{root}/val.json (val, metric, test)'
    assert lines[-1] == f'the data of {path}: no problem found.'


def test_errors(path, capsys):
    assert check_data.main([str(path), '--cfg-options', 'model.bbox_head.num_classes=2']) == 1
    assert 'error: ' in capsys.readouterr().out


def test_missing_paths(path, root, capsys):
    (root / 'val.json').unlink()
    assert check_data.main([str(path)]) == 1
    output = capsys.readouterr().out
    assert f'MISSING  {root}/val.json' in output
    assert f"missing: '{root}/val.json'" in output
    assert '--cfg-options val_dataloader.dataset.data_root=DIR' in output


def test_images(path, root, capsys, monkeypatch):
    monkeypatch.setattr(image_check, 'DECODED', 1)  # the first of a kind
    cut_off = root / 'train' / '2.png'  # its header is whole
    cut_off.write_bytes(cut_off.read_bytes()[:-20])
    assert check_data.main([str(path)]) == 0
    assert check_data.main([str(path), '--images']) == 1
    assert '1 image file that cannot be read' in capsys.readouterr().out


def test_json(path, root, capsys):
    assert check_data.main([str(path), '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert said['problems'] == []
    assert [item['there'] for item in said['paths']] == [True] * 4
    assert said['files'][1]['uses'] == ['val', 'metric', 'test']
    assert said['files'][0]['boxes_by_class'] == dict(bolt=3, nut=3, gear=3)


def test_a_config_that_is_none(path, capsys):
    assert check_data.main(['dino_r1_swin_t_cocoo.py']) == 2
    assert 'near names' in capsys.readouterr().err
    assert check_data.main([str(path), '--cfg-options', 'train_dataloader=None']) == 2
    assert 'no train_dataloader' in capsys.readouterr().err
