"""Boxes that are none; what stops is tested with read_coco, the choice with ExemplarDataset."""

import json

import pytest

from mmdet_dino_r1.datasets.exemplar_selection import candidate_boxes
from mmdet_dino_r1.structures.coco_file import read_coco

NAN, INF = float('nan'), float('inf')


def coco(*boxes, **change):
    annotations = [
        dict(id=i, image_id=7, category_id=1, bbox=list(box)) | change
        for i, box in enumerate(boxes, 1)
    ]
    return dict(
        images=[dict(id=7, file_name='a.png', width=40, height=30)],
        annotations=annotations,
        categories=[dict(id=1, name='cat')],
    )


def boxes_of(content):
    content = read_coco(json.dumps(content).encode(), 'x.json')
    return [box for _, box in candidate_boxes(content, {1: 'cat'})['cat']]


def test_boxes_outside_the_image_are_clipped_or_left_out():
    content = coco([-5, -5, 20, 20], [50, 10, 5, 5], [-20, 0, 10, 10], [30, 20, 99, 99])
    assert boxes_of(content) == [(0.0, 0.0, 15, 15), (30, 20, 40.0, 30.0)]


@pytest.mark.parametrize('box', [[NAN, 0, 9, 9], [0, 0, INF, 9], [9, 9, -5, -5], [3, 3, 0, 9]])
def test_boxes_that_are_none_are_left_out(box):
    assert boxes_of(coco(box, [1, 1, 9, 9])) == [(1, 1, 10, 10)]
