"""Boxes of broken files; how exemplars are chosen is tested with ExemplarDataset."""

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


def test_annotation_without_a_key_is_named_and_one_of_an_unknown_image_left_out():
    content = coco([1, 1, 9, 9])
    del content['annotations'][0]['bbox']
    with pytest.raises(ValueError, match=r"x.json: annotation 1 of image 7 lacks 'bbox'"):
        boxes_of(content)
    assert boxes_of(coco([1, 1, 9, 9], image_id=8)) == []


@pytest.mark.parametrize('box', [[1, 1, 9], ['1', '1', '9', '9'], [1, 1, None, 9], [10**400] * 4])
def test_boxes_that_are_not_four_numbers_are_named(box):
    with pytest.raises(ValueError, match=r'x.json: annotation 1 of image 7 has bbox=.* not four n'):
        boxes_of(coco(box))
