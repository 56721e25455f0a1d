"""Parts of a run that need no training; whole runs are in test_tools/test_study.py."""

import json
import os
import re
from pathlib import Path

import pytest
from conftest import CONFIGS
from mmengine.config import Config

from mmdet_dino_r1.lab.study.grid import split_of
from mmdet_dino_r1.lab.study.results import write_json
from mmdet_dino_r1.lab.study.run import claim, explain_unmeasured, grqo_figures


def test_means_over_the_log():
    rows = [dict(loss=1.0, grqo_kl=1.0), dict(loss=1.0, grqo_kl=3.0), dict(loss=1.0)]
    assert grqo_figures(rows) == dict(grqo_kl=2.0)
    assert grqo_figures([dict(loss=1.0)]) == {}


def test_split_of():
    assert (split_of('novel/g16'), split_of('all')) == ('novel', 'all')


def test_a_folder_has_one_owner(tmp_path):
    with claim(tmp_path) as first, claim(tmp_path) as second:
        assert (first, second) == (True, False)
    with claim(tmp_path, waits=True) as again:
        assert again


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    write_json(path, dict(a=1))
    with pytest.raises(TypeError):
        write_json(path, dict(a=object()))
    monkeypatch.setattr(Path, 'replace', lambda *_: (_ for _ in ()).throw(OSError('full')))
    with pytest.raises(OSError, match='full'):
        write_json(path, dict(a=2))
    assert json.loads(path.read_text()) == dict(a=1)
    assert os.listdir(tmp_path)[0].startswith('a.json')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({}, None),
        ({'train_cfg.max_iters': 20}, None),
        (
            {'train_cfg.max_iters': 19},
            'it trains 19 steps and logs every 20th, .* default_hooks.logger.interval to 19 or',
        ),
        ({'test_evaluator': [dict(type='CocoMetric', metric=['bbox', 'proposal'])]}, None),
        ({'test_evaluator.metric': 'proposal'}, 'its test_evaluator gives no coco/bbox_mAP, .*'),
        ({'test_evaluator.type': 'LVISMetric'}, 'Set test_evaluator.type to CocoMetric, its metr'),
        ({'test_evaluator.type': 'VOCMetric'}, 'gives no coco/bbox_mAP'),
        ({'test_evaluator': None}, 'gives no coco/bbox_mAP'),
    ],
)
def test_what_would_not_be_measured(options, said):
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    cfg.merge_from_dict(options)
    told = explain_unmeasured(cfg)
    if said is None:
        assert told is None
    else:
        assert re.search(said, told)
