"""Published lists of exemplars: every box of every line, as it stands."""

import json
from copy import deepcopy

import cv2
import numpy as np
import pytest
from conftest import CONFIGS
from mmdet.registry import DATASETS
from mmengine.config import Config
from pet_dino_data import SUPPORT, needs_pet_dino

from mmdet_dino_r1.checks.annotation_table import AnnotationTable
from mmdet_dino_r1.config.exemplars import exemplar_config, hook_bank
from mmdet_dino_r1.datasets.support_list import read_support_list

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(80, 60), keep_ratio=True),
    dict(type='PackDetInputs'),
]
NAMES = {1: 'cat', 4: 'dog'}


def line(file, label, *boxes, **more):
    instances = [dict(bbox=[*box], label=label, category=NAMES[label]) for box in boxes]
    detection = dict(instances=instances)
    return dict(filename=file, height=30, width=40, detection=detection) | more


# Image b shows both classes; small boxes, one beyond the border and one of no width.
LINES = [
    line('a.png', 1, (2, 3, 14, 13), (1.5, 1.5, 4.25, 5.5)),
    line('b.png', 1, (-5, 20, 15, 99)),
    line('b.png', 4, (10, 10, 30, 25), (7, 7, 7, 9), (0, 0, 0.5, 3)),
]
BOXES = {
    ('cat', 'a.png'): {(2, 3, 14, 13), (1.5, 1.5, 4.25, 5.5)},
    ('cat', 'b.png'): {(0, 20, 15, 30)},
    ('dog', 'b.png'): {(10, 10, 30, 25), (0, 0, 0.5, 3)},
}


def text_of(lines):
    return '\n'.join(one if isinstance(one, str) else json.dumps(one) for one in lines) + '\n'


@pytest.fixture
def build(tmp_path):
    for name in 'ab':
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.zeros((30, 40, 3), np.uint8))

    def build_dataset(lines=LINES, **kwargs):
        (tmp_path / 'list.json').write_text(text_of(lines))
        given = dict(type='SupportListDataset', ann_file='list.json', pipeline=PIPELINE)
        return DATASETS.build(given | dict(data_root=str(tmp_path)) | kwargs)

    return build_dataset


def boxes_of(dataset):
    """By class and file, all boxes."""
    found = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for label, box in zip(info['exemplar_labels'], info['exemplar_boxes'], strict=True):
            found.setdefault((dataset.metainfo['classes'][label], info['file_name']), set()).add(
                tuple(box)
            )
    return found


def test_every_box_is_taken_and_clipped(build):
    dataset = build(joint=True)
    assert boxes_of(dataset) == BOXES
    assert len(dataset) == 2  # each image once
    assert dataset.metainfo['classes'] == ('cat', 'dog') and dataset.class_ids == (1, 4)
    prompts = dataset[1]['data_samples'].prompt_instances
    assert prompts.labels.tolist() == [0, 1, 1]
    assert prompts.bboxes.tolist()[0] == [0, 40, 30, 60]  # twice as large as in the file


def test_summary_says_that_nothing_was_drawn_and_what_was_left_out(build):
    about = build(joint=True).summary
    assert (about['counts'], about['num_exemplars']) == (dict(cat=2, dog=1), 3)
    assert (about['shots'], about['fewest'], about['most']) == (2, 1, 2)
    assert about['seed'] == 'none (a given list)' and about['joint']
    assert (about['num_boxes'], about['boxes_left_out']) == (5, 1)
    alone = build(joint=False)  # each box is an exemplar
    assert boxes_of(alone) == BOXES and alone.summary['counts'] == dict(cat=3, dog=2)


def test_seed_and_shots_change_nothing(build):
    assert boxes_of(build(shots=1, seed=7, joint=True)) == BOXES


def test_matched_by_id_under_the_names_tested(build):
    dataset = build(classes=['hound', 'kitten'], category_ids=[4, 1])
    assert dataset.metainfo['classes'] == ('hound', 'kitten')
    assert boxes_of(dataset).keys() == {
        ('kitten', 'a.png'),
        ('kitten', 'b.png'),
        ('hound', 'b.png'),
    }
    assert dataset.summary['renamed'] == dict(cat='kitten', dog='hound')
    by_name = build(classes=['dog'])
    assert boxes_of(by_name).keys() == {('dog', 'b.png')}


def test_an_id_that_the_list_lacks(build):
    """As id 1, Q, of boggleBoards."""
    asked = dict(classes=['Q', 'cat', 'dog'], category_ids=[2, 1, 4])
    with pytest.raises(ValueError, match=r"no categories of id 2 \('Q'\); .*skip_missing=True"):
        build(**asked)
    dataset = build(**asked, skip_missing=True)
    assert dataset.metainfo['classes'] == ('cat', 'dog') and dataset.class_ids == (1, 4)
    assert dataset.summary['classes_left_out'] == ['Q']
    with pytest.raises(ValueError, match=r"no categories named 'cats' \(near: cat\)"):
        build(classes=['cats'])


def change(**more):
    entry = deepcopy(LINES[1])
    entry['detection']['instances'][0] |= more
    return entry


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        ('{"filename": "b.png"', 'line 2: no JSON in UTF-8'),
        ('[1]', 'line 2: no {…}'),
        (dict(LINES[1], filename=3), 'line 2: filename is 3, which is no path'),
        (dict(LINES[1], height=0), 'line 2: height is 0, which is no size'),
        (dict(LINES[1], width=None), 'line 2: width is None, which is no size'),
        (dict(LINES[1], detection=[]), 'line 2: no list of boxes under detection.instances'),
        (dict(filename='b.png', height=3, width=4), 'line 2: no list of boxes'),
        (line('b.png', 1), 'line 2: no list of boxes'),
        (change(bbox=[1, 2, 3]), r'line 2: bbox is \[1, 2, 3\], which is not four numbers'),
        (change(bbox=[1, 2, 3, float('nan')]), 'line 2: bbox is .*, which is not four numbers'),
        (change(label='1'), "line 2: label is '1', which is no whole number"),
        (change(category=None), 'line 2: category is None, which is no text'),
        (change(category='cow'), "line 2: label 1 is 'cow', further above it is 'cat'"),
        (line('a.png', 4, (1, 1, 9, 9), width=50), 'line 2: a.png has another size'),
        (line('a.png', 1, (1, 1, 9, 9)), "lines 1 and 2: both list 'cat' on a.png. Put all"),
    ],
)
def test_a_line_that_is_wrong_is_named(wrong, said):
    with pytest.raises(ValueError, match=f'^the list.json, {said}'):
        read_support_list(text_of([LINES[0], wrong]).encode(), 'the list.json')


ODD = [None, True, -1, 0, 3, 10**400, float('nan'), float('inf'), 1e300, '', '4', [], [1], {}]
PLACES = ['filename', 'height', 'width', 'detection', 'detection.instances']
PLACES += [f'detection.instances.{key}' for key in ('0', '0.bbox', '0.bbox.2', '0.label')]
PLACES += ['detection.instances.0.category']


@pytest.mark.parametrize('place', PLACES)
def test_whatever_a_line_holds_it_is_read_or_the_list_is_named(place):
    for value in ODD:
        lines = deepcopy(LINES)
        *owners, key = place.split('.')
        node = lines[1]
        for owner in owners:
            node = node[int(owner) if owner.isdecimal() else owner]
        node[int(key) if key.isdecimal() else key] = value
        try:
            coco, _ = read_support_list(text_of(lines).encode(), 'x.json')
        except ValueError as error:
            assert str(error).startswith('x.json')
        else:
            assert len(AnnotationTable(coco, 'x.json')) == len(coco['annotations'])


def test_other_files_are_told_apart():
    coco = dict(images=[], annotations=[], categories=[])
    for content in (json.dumps(coco), json.dumps(coco, indent=1)):
        with pytest.raises(ValueError, match='a COCO file goes by ann_file instead'):
            read_support_list(content.encode(), 'x.json')
    with pytest.raises(ValueError, match=r'x\.json is empty'):
        read_support_list(b'\n', 'x.json')
    with pytest.raises(ValueError, match='line 1: no JSON in UTF-8'):
        read_support_list(text_of(LINES).encode('utf-16'), 'x.json')


def test_two_ids_of_one_name_need_ids():
    twice = [line('a.png', 1, (1, 1, 9, 9)), line('a.png', 4, (2, 2, 9, 9))]
    twice[1]['detection']['instances'][0]['category'] = 'cat'
    with pytest.raises(ValueError, match="more than once: 'cat'"):
        read_support_list(text_of(twice).encode(), 'x.json')
    coco, _ = read_support_list(text_of(twice).encode(), 'x.json', unique_names=False)
    assert [category['id'] for category in coco['categories']] == [1, 4]


@needs_pet_dino
def test_published_lists_hold_what_their_index_says_and_fit_the_configs():
    index = json.loads((SUPPORT / 'index.json').read_text())
    left_out, lines, boxes = {}, [], []
    for name, about in index.items():
        path = SUPPORT / about['file']
        coco, left = read_support_list(path.read_bytes(), str(path))
        left_out |= {name: len(left)} if left else {}
        sets = {(ann['category_id'], ann['image_id']) for ann in coco['annotations']}
        counts = [len(sets), len(coco['images']), len(coco['annotations']) + len(left)]
        assert counts == [about[key] for key in ('lines', 'images', 'boxes')], name
        assert len(coco['categories']) == about['classes']
        lines.append(counts[0])
        boxes.append(counts[2])
    assert left_out == {'odinw/websiteScreenshots': 2}
    assert (lines[0], boxes[0]) == (1280, 2821)
    assert (len(lines), sum(lines[1:]), sum(boxes[1:])) == (36, 4842, 10613)

    members = Config.fromfile(CONFIGS / '_base_/benchmarks/odinw35.py').test_dataloader.dataset
    for name, member in members.datasets.items():
        about = index[f'odinw/{name}']
        assert about['file'] == f'odinw/{member.prompts.support}'
        folder = f'./{member.data_root}{member.prompts.data_prefix.img}'
        assert about['image_folder'] == folder


@needs_pet_dino
def test_one_key_puts_the_published_list_into_the_shipped_config():
    cfg = Config.fromfile(CONFIGS / 'dino_r1_swin_t_zeroshot_coco.py')
    path = SUPPORT / 'cocoTrain_odvg_16.json'
    cfg.default_hooks.prompt_bank.bank.support = str(path)
    dataset = DATASETS.build(dict(exemplar_config(hook_bank(cfg), cfg), joint=True))
    about = dataset.summary
    assert len(dataset) == about['num_images'] == 1273 and about['num_boxes'] == 2821
    assert set(about['counts'].values()) == {16} and about['ann_file'] == str(path)
    info = dataset.get_data_info(0)
    assert info['img_path'] == f'data/coco/train2017/{info["file_name"]}'
    assert dataset.class_ids[:1] + dataset.class_ids[-1:] == (1, 90)
