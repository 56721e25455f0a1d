"""What prompts are tuned on: the exemplars of a bank, and every box that is to be found."""

import json

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(80, 60), keep_ratio=True),
    dict(type='PackDetInputs'),
]
# image, category, (x, y, width, height), and what else is said of the box
BOXES = [
    (1, 1, (2, 3, 12, 10), {}),
    (1, 1, (20, 15, 10, 9), {}),
    (1, 2, (-5, 20, 15, 99), {}),  # clipped
    (2, 1, (4, 4, 20, 20), {}),
    (2, 1, (30, 4, 3, 4), {}),  # too small for an exemplar
    (2, 1, (30, 4, 0.5, 9), {}),  # no pixel
    (2, 2, (0, 0, 40, 30), dict(iscrowd=1)),
    (2, 3, (8, 8, 9, 9), {}),
    (3, 3, (8, 8, 9, 9), {}),
    (3, 1, (8, 8, 9, 9), dict(ignore=1)),
]


@pytest.fixture
def build(tmp_path):
    """Images 1 to 4 of 40x30; 3 has no box of a cat or dog, 4 none at all."""
    for number in range(1, 5):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.zeros((30, 40, 3), np.uint8))
    coco = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=40, height=30) for i in (3, 4, 2, 1)],
        categories=[dict(id=i, name=name) for i, name in enumerate(['cat', 'dog', 'owl'], 1)],
        annotations=[
            dict(id=i, image_id=image, category_id=label, bbox=list(box), **more)
            for i, (image, label, box, more) in enumerate(BOXES, 1)
        ],
    )
    (tmp_path / 'anns.json').write_text(json.dumps(coco))

    def build_dataset(kind='TuningDataset', **kwargs):
        given = dict(type=kind, ann_file='anns.json', pipeline=PIPELINE, data_root=str(tmp_path))
        return DATASETS.build(given | kwargs)

    return build_dataset


def targets(dataset):
    """By image id, what is to be found in pixels of the network input, twice those of the file."""
    found = {}
    for index in range(len(dataset)):
        gt = dataset[index]['data_samples'].gt_instances
        names = [dataset.metainfo['classes'][label] for label in gt.labels]
        found[dataset.get_data_info(index)['img_id']] = [
            (name, *box) for name, box in zip(names, gt.bboxes.tolist(), strict=True)
        ]
    return found


def test_every_box_of_the_classes_is_to_be_found_and_the_rest_is_background(build):
    dataset = build(shots=None, classes=['dog', 'cat'])
    assert targets(dataset) == {
        1: [('dog', 0, 40, 20, 60), ('cat', 4, 6, 28, 26), ('cat', 40, 30, 60, 48)],
        2: [('cat', 8, 8, 48, 48), ('cat', 60, 8, 66, 16)],
        3: [],
        4: [],
    }
    prompts = [dataset[i]['data_samples'].prompt_instances for i in range(4)]
    assert [p.labels.tolist() for p in prompts] == [[0, 1, 1], [1], [], []]
    about = dataset.summary
    assert (about['shots'], about['num_images'], about['images_in_file']) == ('all', 4, 4)
    assert about['counts'] == dict(dog=1, cat=3)


@pytest.mark.parametrize('joint', [False, True])
@pytest.mark.parametrize('seed', range(3))
def test_counted_exemplars_are_those_of_a_bank_and_bring_their_whole_images(build, seed, joint):
    asked = dict(shots=1, seed=seed, classes=['cat'], joint=joint)
    bank, tuned = build('ExemplarDataset', **asked), build(**asked)
    (chosen,) = [bank.get_data_info(index) for index in range(len(bank))]
    (mine,) = [tuned.get_data_info(index) for index in range(len(tuned))]
    extra = mine.pop('target_labels'), mine.pop('target_boxes')
    assert mine == chosen and tuned.summary == bank.summary
    assert [len(values) for values in extra] == [2, 2]  # images 1 and 2 have two cats each


def test_what_an_image_shows_survives_a_pipeline_that_loads_annotations(build):
    pipeline = [PIPELINE[0], dict(type='LoadAnnotations', with_bbox=True), *PIPELINE[1:]]
    assert targets(build(pipeline=pipeline)) == targets(build())
