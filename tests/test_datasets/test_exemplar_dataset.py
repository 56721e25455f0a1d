import copy
import hashlib
import json
import random
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS

from mmdet_dino_r1.datasets.exemplar_dataset import ExemplarDataset
from mmdet_dino_r1.datasets.exemplar_selection import choose_exemplars

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(80, 60), keep_ratio=True),
    dict(type='PackDetInputs'),
]


def coco_dict():
    """Six images of 40x30; cats in all, twice in the first two; one dog."""
    images = [dict(id=i, file_name=f'{i}.png', width=40, height=30) for i in range(1, 7)]
    boxes = [(i, 1, [2.0 * i, 3, 12, 10]) for i in range(1, 7)]
    boxes += [(1, 1, [20, 15, 10, 9]), (2, 1, [20, 15, 10, 9])]
    boxes += [(4, 2, [10, 10, 20, 15])]
    annotations = [
        dict(id=i, image_id=image, category_id=cat, bbox=list(box), area=box[2] * box[3], iscrowd=0)
        for i, (image, cat, box) in enumerate(boxes, 1)
    ]
    categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    return dict(images=images, annotations=annotations, categories=categories)


@pytest.fixture
def build(tmp_path):
    for i in range(1, 7):
        image = np.full((30, 40, 3), 20 * i, np.uint8)
        cv2.imwrite(str(tmp_path / f'{i}.png'), image)

    def build_dataset(coco=None, **kwargs):
        (tmp_path / 'anns.json').write_text(json.dumps(coco or coco_dict()))
        kwargs = (
            dict(
                type='ExemplarDataset',
                ann_file='anns.json',
                pipeline=PIPELINE,
                data_root=str(tmp_path),
            )
            | kwargs
        )
        return DATASETS.build(kwargs)

    return build_dataset


def exemplars(dataset):
    """All ``(class, image id, box)`` of a dataset."""
    found = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for label, box in zip(info['exemplar_labels'], info['exemplar_boxes'], strict=True):
            found.append((dataset.metainfo['classes'][label], info['img_id'], tuple(box)))
    return found


def test_one_box_per_image_while_images_last(build):
    for seed in range(5):
        dataset = build(shots=6, seed=seed, classes=['cat'])
        images = [image for _, image, _ in exemplars(dataset)]
        assert images == [1, 2, 3, 4, 5, 6]  # sorted, each once


def test_second_boxes_follow_until_none_is_left(build):
    dataset = build(shots=7, classes=['cat'])
    counts = Counter(image for _, image, _ in exemplars(dataset))
    assert sorted(counts.values()) == [1, 1, 1, 1, 1, 2]
    assert len(dataset) == 6
    everything = build(shots=100, classes=['cat'])
    assert everything.summary['counts'] == dict(cat=8)
    assert len(set(exemplars(everything))) == 8


def test_fewer_shots_are_the_first_of_more():
    boxes = [(i % 5, (i, 0.0, i + 9.0, 9.0)) for i in range(12)]
    most = choose_exemplars(boxes, 12, 3, 'cat')
    assert len(set(most)) == 12
    for shots in range(1, 12):
        assert choose_exemplars(boxes, shots, 3, 'cat') == most[:shots]


def test_seed_and_name_decide_the_choice():
    boxes = [(i, (0.0, 0.0, 9.0, 9.0)) for i in range(100)]
    first = choose_exemplars(boxes, 16, 0, 'cat')
    assert first == choose_exemplars(boxes, 16, 0, 'cat')
    assert first != choose_exemplars(boxes, 16, 1, 'cat')
    assert first != choose_exemplars(boxes, 16, 0, 'dog')


def test_choice_depends_on_no_order_id_or_other_class(build):
    plain = build(shots=3, classes=['cat'])

    coco = copy.deepcopy(coco_dict())
    rng = random.Random(1)
    new_id = {1: 91, 2: 5}
    for category in coco['categories']:
        category['id'] = new_id[category['id']]
    for ann in coco['annotations']:
        ann['category_id'] = new_id[ann['category_id']]
        ann['id'] += 100
    for entries in coco.values():
        rng.shuffle(entries)
    shuffled = build(coco, shots=3, classes=['dog', 'cat'])

    cats = [item for item in exemplars(shuffled) if item[0] == 'cat']
    assert cats == exemplars(plain)
    assert shuffled.summary['counts'] == dict(dog=1, cat=3)


def test_crowds_ignored_and_small_boxes_are_skipped(build):
    coco = coco_dict()
    skipped = [dict(iscrowd=1), dict(ignore=1), dict(bbox=[2, 2, 7.9, 20])]
    skipped += [dict(bbox=[33, 2, 20, 20])]  # 7 pixels of it in the image
    for ann, change in zip(coco['annotations'], skipped, strict=False):
        ann.update(change)
    found = exemplars(build(coco, shots=100, classes=['cat']))
    # images 1 and 2 keep their second box
    assert [image for _, image, _ in found] == [1, 2, 5, 6]


def test_boxes_are_clipped_to_the_image(build):
    coco = coco_dict()
    coco['annotations'] = coco['annotations'][:1]
    coco['annotations'][0]['bbox'] = [-5, 20, 15, 30]
    assert exemplars(build(coco)) == [('cat', 1, (0.0, 20.0, 10.0, 30.0))]


def test_class_of_small_boxes_falls_back_to_the_largest(build):
    coco = coco_dict()
    sizes = [3, 6, 5, 0.5, 4, 2, 7, 1]
    for ann, size in zip(coco['annotations'], sizes, strict=False):
        ann['bbox'] = [1, 1, size, size]
    coco['annotations'][6]['iscrowd'] = 1  # the largest does not count
    found = exemplars(build(coco, shots=3, classes=['cat']))
    assert sorted(box[2] - 1 for _, _, box in found) == [4, 5, 6]


def test_missing_classes_are_named(build):
    with pytest.raises(ValueError, match=r"no categories named 'dogs' \(near: dog\)"):
        build(classes=['cat', 'dogs'])

    coco = coco_dict()
    coco['annotations'][-1]['iscrowd'] = 1
    with pytest.raises(ValueError, match="no box that could serve as an exemplar for 'dog'. Take"):
        build(coco, classes=['cat', 'dog'])


def test_categories_without_boxes_are_left_out_of_all(build):
    coco = coco_dict()
    coco['categories'].insert(0, dict(id=9, name='animals'))
    dataset = build(coco)
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert dataset.summary['classes_left_out'] == ['animals']


def test_lvis_image_is_found_by_its_url(build, tmp_path):
    coco = coco_dict()
    for image in coco['images']:
        name = image.pop('file_name')
        image['coco_url'] = f'http://images.cocodataset.org/train2017/{name}'
    dataset = build(coco, data_prefix=dict(img='coco'))
    assert dataset.get_data_info(0)['img_path'] == str(tmp_path / 'coco/train2017/1.png')


@pytest.mark.parametrize('where', ['none', 'before', 'after'])
def test_boxes_are_in_the_frame_of_the_network_input(build, where):
    pipeline = copy.deepcopy(PIPELINE)
    if where != 'none':
        load = dict(type='LoadAnnotations', with_bbox=True)
        pipeline.insert(1 if where == 'before' else 2, load)
    dataset = build(shots=100, classes=['dog', 'cat'], pipeline=pipeline)
    data = dataset[3]
    sample = data['data_samples']
    assert tuple(data['inputs'].shape) == (3, 60, 80)
    assert sample.img_id == 4
    # labels follow `classes`, boxes are twice as large as in the file
    assert sample.prompt_instances.labels.tolist() == [0, 1]
    assert sample.prompt_instances.labels.dtype == torch.long
    torch.testing.assert_close(
        sample.prompt_instances.bboxes,
        torch.tensor([[20.0, 20.0, 60.0, 50.0], [16.0, 6.0, 40.0, 26.0]]),
    )


def test_uneven_resize_scales_each_axis(build):
    pipeline = copy.deepcopy(PIPELINE)
    pipeline[1] = dict(type='Resize', scale=(80, 30), keep_ratio=False)
    sample = build(classes=['dog'], pipeline=pipeline)[0]['data_samples']
    assert sample.prompt_instances.bboxes.tolist() == [[20.0, 10.0, 60.0, 25.0]]


@pytest.mark.parametrize(
    'transform',
    [
        dict(type='RandomFlip', prob=1.0),
        dict(type='Pad', size=(100, 100)),
        dict(type='RandomCrop', crop_size=(20, 20)),
    ],
)
def test_pipeline_that_moves_boxes_is_refused(build, transform):
    pipeline = copy.deepcopy(PIPELINE)
    pipeline[1] = transform
    dataset = build(pipeline=pipeline)
    with pytest.raises(ValueError, match='only resizes'):
        dataset[0]


def test_image_of_another_size_than_annotated(build, tmp_path):
    dataset = build()
    cv2.imwrite(str(tmp_path / '1.png'), np.zeros((40, 30, 3), np.uint8))
    with pytest.raises(ValueError, match='is 30x40 pixels, its annotation file says 40x30'):
        dataset[0]


def test_summary(build, tmp_path):
    assert build(shots=4, seed=2).summary == dict(
        ann_file=str(tmp_path / 'anns.json'),
        ann_sha256=hashlib.sha256(json.dumps(coco_dict()).encode()).hexdigest(),
        img_prefix=f'{tmp_path}/',
        images_in_file=6,
        renamed={},
        seed=2,
        shots=4,
        fewest=1,
        most=4,
        num_images=len(build(shots=4, seed=2)),
        num_exemplars=5,
        num_boxes=5,
        joint=False,
        counts=dict(cat=4, dog=1),
        classes_left_out=[],
    )


class TestJoint:
    """A shot is an image with all usable boxes of the class."""

    def test_images_are_those_that_single_boxes_come_from(self, build):
        for shots in (1, 3, 6):
            one_each = exemplars(build(shots=shots, seed=4, classes=['cat']))
            joint = exemplars(build(shots=shots, seed=4, classes=['cat'], joint=True))
            assert {image for _, image, _ in joint} == {image for _, image, _ in one_each}
            assert set(one_each) <= set(joint)
            assert Counter(image for _, image, _ in joint) == {
                image: 2 if image < 3 else 1 for _, image, _ in one_each
            }

    def test_summary_counts_images(self, build):
        summary = build(shots=2, seed=1, joint=True).summary
        assert build(shots=6, joint=True).summary['num_boxes'] == 9
        assert summary['joint'] and summary['shots'] == 2
        assert summary['counts'] == dict(cat=2, dog=1) and summary['num_exemplars'] == 3
        assert (summary['fewest'], summary['most']) == (1, 2)
        assert summary != build(shots=2, seed=1).summary

    def test_only_usable_boxes(self, build):
        coco = coco_dict()
        coco['annotations'][6]['bbox'] = [20, 15, 10, 7]  # the second cat of image 1
        coco['annotations'][7]['iscrowd'] = 1
        found = exemplars(build(coco, shots=6, classes=['cat'], joint=True))
        assert [image for _, image, _ in found] == [1, 2, 3, 4, 5, 6]

    def test_small_boxes_alone_give_the_images_of_the_largest(self):
        boxes = [(1, 2), (1, 5), (2, 4), (3, 3), (3, 6)]
        candidates = [(image, (0.0, 0.0, side, side)) for image, side in boxes]
        found = choose_exemplars(candidates, 2, 0, 'cat', joint=True)
        assert [(image, box[2]) for image, box in found] == [(3, 6), (1, 5), (3, 3), (1, 2)]

    def test_fewer_shots_are_the_first_of_more(self):
        boxes = [(i % 5, (i, 0.0, i + 9.0, 9.0)) for i in range(12)]
        most = choose_exemplars(boxes, 12, 3, 'cat', joint=True)
        for shots in range(1, 5):
            found = choose_exemplars(boxes, shots, 3, 'cat', joint=True)
            assert found == most[: len(found)]
            assert len({image for image, _ in found}) == shots


def test_no_shots(build):
    with pytest.raises(ValueError, match='shots must be at least 1'):
        build(shots=0)


def test_broken_file(tmp_path):
    (tmp_path / 'anns.json').write_text('nonsense')
    with pytest.raises(ValueError, match='anns.json is not COCO JSON'):
        ExemplarDataset(ann_file=str(tmp_path / 'anns.json'), pipeline=PIPELINE)


def test_categories_matched_by_id_take_the_names_asked_for(build):
    dataset = build(classes=['hound', 'cat'], category_ids=[2, 1], shots=1)
    assert dataset.metainfo['classes'] == ('hound', 'cat')
    assert dataset.class_ids == (2, 1)
    assert dataset.summary['renamed'] == dict(dog='hound')
    assert [item for item in exemplars(dataset) if item[0] == 'hound'] == [
        ('hound', 4, (10.0, 10.0, 30.0, 25.0))
    ]
    said = r"no categories of id 9 \('hound'\); its ids are 1, 2. skip_missing=True leaves"
    with pytest.raises(ValueError, match=said):
        build(classes=['hound'], category_ids=[9])
    with pytest.raises(ValueError, match='one category for each'):
        build(classes=['hound'], category_ids=[1, 2])


def test_names_may_repeat_where_ids_decide(build):
    coco = coco_dict()
    coco['categories'][1]['name'] = 'cat'
    assert len(exemplars(build(coco, classes=['a', 'b'], category_ids=[1, 2], shots=1))) == 2


def test_classes_without_a_box_may_be_skipped(build):
    dataset = build(classes=['zebra', 'dog', 'cat'], skip_missing=True, shots=1)
    assert dataset.metainfo['classes'] == ('dog', 'cat')
    assert dataset.summary['classes_left_out'] == ['zebra']
    by_id = build(classes=['x', 'y'], category_ids=[9, 2], skip_missing=True, shots=1)
    assert by_id.metainfo['classes'] == ('y',) and by_id.class_ids == (2,)
    with pytest.raises(ValueError, match='no box that could serve as an exemplar'):
        build(classes=['zebra'], skip_missing=True)
    assert build(classes=['zebra', 'dog'], skip_missing=['zebra']).metainfo['classes'] == ('dog',)
    with pytest.raises(ValueError, match="named 'zebra'"):
        build(classes=['zebra', 'dog'], skip_missing=['dog'])


def test_missing_and_unreadable_images_are_named(build, tmp_path):
    dataset = build(shots=100)
    dataset.check_images()
    (tmp_path / '3.png').unlink()
    (tmp_path / '4.png').write_text('no image')
    with pytest.raises(FileNotFoundError, match=r'1 of 6 images .* missing, among them .*3\.png'):
        dataset.check_images()
    with pytest.raises(ValueError, match=r'4\.png cannot be read as an image'):
        dataset[3]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='annotation file of the exemplars does not exist'):
        ExemplarDataset(ann_file=str(tmp_path / 'none.json'), pipeline=PIPELINE)


def test_images_are_ordered_by_size(build):
    coco = coco_dict()
    for image in coco['images']:
        image['height'] = 30 if image['id'] % 2 else 20
    dataset = build(coco, shots=100)
    assert [dataset.get_data_info(i)['img_id'] for i in range(6)] == [2, 4, 6, 1, 3, 5]
