"""Whatever an annotation file holds: it is read, or a ValueError names it.

What a dataset, a bank or the metric refuses, the check of the data calls an error; what a dataset
takes, the metric takes.

The examples are made by hypothesis, the same in every run.
"""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmdet_dino_r1.checks.annotation_table import AnnotationTable
from mmdet_dino_r1.checks.data_check import check_file
from mmdet_dino_r1.checks.image_check import check_images
from mmdet_dino_r1.datasets import CocoJsonDataset, ExemplarDataset
from mmdet_dino_r1.evaluation import CocoJsonMetric

odd = st.sampled_from(
    [None, True, -1, 0, 3, 10**400, float('nan'), float('inf'), 1e300, '', '4', [], [1], {}]
)
GOOD = dict(
    images=[dict(id=i, file_name='a.png', width=40, height=40) for i in (1, 2)],
    categories=[dict(id=1, name='a'), dict(id=2, name='b')],
    annotations=[
        dict(id=1, image_id=1, category_id=1, bbox=[4, 4, 20, 10], area=200, iscrowd=0),
        dict(id=2, image_id=2, category_id=2, bbox=[8, 8, 9, 9], area=81, iscrowd=0),
        dict(id=3, image_id=2, category_id=1, bbox=[0, 0, 40, 40], area=1600, iscrowd=1),
    ],
)
sides = st.one_of(st.integers(-50, 50), odd)
values = st.one_of(odd, odd, st.integers(-5, 50), st.lists(sides, min_size=3, max_size=5))
_MISSING = object()


@st.composite
def damaged(draw):
    """The good file with a few values, entries or lists replaced or taken away."""
    coco = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        owner, key = coco, draw(st.sampled_from([*GOOD]))
        for _ in range(draw(st.sampled_from([0, 1, 2, 2, 2, 2, 3]))):
            inner = owner.get(key) if isinstance(owner, dict) else owner[key]
            if not isinstance(inner, list | dict) or not inner:
                break
            keys = range(len(inner)) if isinstance(inner, list) else sorted(inner)
            owner, key = inner, draw(st.sampled_from(keys))
        value = draw(st.one_of(st.just(_MISSING), values, values, values))
        if value is not _MISSING:
            owner[key] = value
        elif isinstance(owner, list) or key in owner:
            del owner[key]
    return coco


BY_MMDET = ('CocoDataset', 'CocoMetric')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(40, 40)),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='PackDetInputs'),
]


def everything_found(info):
    found = info['instances']
    return dict(
        img_id=info['img_id'],
        img_path=info['img_path'],
        ori_shape=(info['height'], info['width']),
        pred_instances=dict(
            bboxes=torch.tensor([one['bbox'] for one in found], dtype=float).reshape(-1, 4),
            labels=torch.tensor([one['bbox_label'] for one in found], dtype=int),
            scores=torch.ones(len(found)),
        ),
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('any')
    Image.new('RGB', (40, 40)).save(folder / 'a.png')
    return folder


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.one_of(damaged(), damaged(), damaged(), odd))
@example(GOOD)
def test_a_file_is_read_or_named(folder, coco):
    path = folder / 'ann.json'
    path.write_text(json.dumps(coco))

    def checked():
        table = AnnotationTable(json.loads(path.read_bytes()), str(path))
        problems = check_file(table, ('train', 'val', 'prompts', 'metric'), BY_MMDET)
        problems += check_images(table, str(folder), each=True)
        table.summary()
        if any(problem.is_error for problem in problems if not problem.kind.startswith('odd')):
            raise ValueError(f'{path} has errors')

    def trained_on():
        dataset = CocoJsonDataset(
            ann_file=str(path), data_prefix=dict(img=str(folder)), pipeline=PIPELINE
        )
        instances = dataset[0]['data_samples'].gt_instances
        boxes = instances.bboxes.tensor.numpy()
        assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert (0 <= boxes).all() and (boxes <= 40).all()
        assert (instances.labels < len(dataset.metainfo['classes'])).all()

    def prompted_from():
        dataset = ExemplarDataset(
            str(path), [PIPELINE[0], PIPELINE[-1]], data_prefix=dict(img=str(folder))
        )
        boxes = dataset[0]['data_samples'].prompt_instances.bboxes.numpy()
        assert np.isfinite(boxes).all() and (boxes[:, 2:] - boxes[:, :2] >= 1).all()
        assert (0 <= boxes).all() and (boxes <= 40).all()

    def evaluated():
        dataset = CocoJsonDataset(
            ann_file=str(path), data_prefix=dict(img=str(folder)), pipeline=[], test_mode=True
        )
        metric = CocoJsonMetric(str(path))
        metric.dataset_meta = dataset.metainfo
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        metric.process({}, [everything_found(info) for info in infos])
        assert -1 <= metric.evaluate(len(dataset)).get('coco/bbox_mAP', 0) <= 1

    refused = []
    for use in (checked, trained_on, prompted_from, evaluated):
        try:
            use()
        except ValueError as error:
            assert json.dumps(coco) != json.dumps(GOOD)
            assert str(folder) in str(error), error
            refused.append(use)
    assert not refused or checked in refused
