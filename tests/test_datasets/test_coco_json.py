import json
import pickle

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS

from mmdet_dino_r1.datasets import coco_json

# Ids neither sorted nor dense, names not sorted.
CATEGORIES = [
    dict(id=7, name='zebra'),
    dict(id=3, name='apple'),
    dict(id=12, name='mango'),
]


def coco_dict(**changes):
    coco = dict(
        images=[
            dict(id=1, file_name='a.png', width=40, height=30),
            dict(id=2, file_name='b.png', width=40, height=30),
        ],
        annotations=[
            dict(id=1, image_id=1, category_id=3, bbox=[1, 2, 10, 10], area=100, iscrowd=0),
            dict(id=2, image_id=1, category_id=12, bbox=[5, 5, 20, 20], area=400, iscrowd=0),
            dict(id=3, image_id=2, category_id=7, bbox=[0, 0, 8, 8], area=64, iscrowd=0),
        ],
        categories=CATEGORIES,
    )
    coco.update(changes)
    return coco


@pytest.fixture
def write(tmp_path):
    def write_file(coco):
        path = tmp_path / 'anns.json'
        path.write_text(coco if isinstance(coco, str) else json.dumps(coco))
        return str(path)

    return write_file


def build(**kwargs):
    return DATASETS.build(dict(type='CocoJsonDataset', data_prefix=dict(img=''), **kwargs))


def names_of_labels(dataset):
    """Class name of each instance, by image, read through the labels."""
    classes = dataset.metainfo['classes']
    return [
        [classes[instance['bbox_label']] for instance in dataset.get_data_info(i)['instances']]
        for i in range(len(dataset))
    ]


def test_classes_come_from_the_file(write):
    dataset = build(ann_file=write(coco_dict()))
    assert dataset.metainfo['classes'] == ('zebra', 'apple', 'mango')
    assert dataset.cat_ids == [7, 3, 12]
    assert names_of_labels(dataset) == [['apple', 'mango'], ['zebra']]


def test_given_classes_are_kept_in_label_order(write):
    metainfo = dict(classes=('mango', 'zebra'), palette=[(1, 1, 1), (2, 2, 2)])
    dataset = build(ann_file=write(coco_dict()), metainfo=metainfo)
    assert dataset.metainfo['classes'] == ('zebra', 'mango')
    assert dataset.metainfo['palette'] == [(2, 2, 2), (1, 1, 1)]
    assert names_of_labels(dataset) == [['mango'], ['zebra']]
    assert metainfo['classes'] == ('mango', 'zebra')  # the config is not changed


def test_missing_class_is_named_with_the_nearest(write):
    with pytest.raises(ValueError, match=r"named 'mangos' \(near: mango\), 'quux'; it has 3"):
        build(ann_file=write(coco_dict()), metainfo=dict(classes=['mangos', 'apple', 'quux']))


def test_class_asked_for_twice(write):
    with pytest.raises(ValueError, match='must not repeat'):
        build(ann_file=write(coco_dict()), metainfo=dict(classes=['apple', 'apple']))


def test_fixed_classes_keep_their_place(write):
    path = write(coco_dict())
    metainfo = dict(classes=('mango', 'kiwi', 'zebra'), palette=[(1, 1, 1), (2, 2, 2), (3, 3, 3)])
    more = dict(ann_file=path, metainfo=metainfo, fixed_classes=True)
    dataset = build(**more)
    assert dataset.metainfo['classes'] == ('mango', 'kiwi', 'zebra')
    assert dataset.metainfo['palette'] == metainfo['palette']
    infos = [dataset.get_data_info(index)['instances'] for index in range(2)]
    assert [[box['bbox_label'] for box in info] for info in infos] == [[0], [2]]  # apple is dropped
    filtered = build(**more, filter_cfg=dict(filter_empty_gt=True))
    assert names_of_labels(filtered) == [['mango'], ['zebra']]
    # a metric reads the file's order
    assert build(**more, test_mode=True).metainfo['classes'] == ('zebra', 'mango')
    with pytest.raises(ValueError, match="no categories named 'kiwi', 'plum'"):
        build(ann_file=path, metainfo=dict(classes=['kiwi', 'plum']), fixed_classes=True)
    with pytest.raises(ValueError, match='needs metainfo'):
        build(ann_file=path, fixed_classes=True)


@pytest.mark.parametrize('flags', [dict(iscrowd=1), dict(iscrowd='1'), dict(ignore=1)])
def test_crowds_are_not_trained_on(write, flags):
    coco = coco_dict()
    coco['annotations'][1].update(flags)
    steps = [dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs', meta_keys=())]
    dataset = build(ann_file=write(coco), pipeline=steps)
    assert dataset[0]['data_samples'].gt_instances.labels.tolist() == [1]  # apple, no mango


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (dict(metainfo=dict(CLASSES=('mango',))), r'Write metainfo=dict\(classes=…\)'),
        (dict(data_prefix=dict(img_path='')), r"Write data_prefix=dict\(img='images/'\)"),
        (dict(data_prefix='images/'), r"Write data_prefix=dict\(img='images/'\)"),
        (dict(ann_file=['a.json', 'b.json']), r"datasets=\[dict\(common, ann_file='a.json'\), "),
    ],
)
def test_arguments_in_mmdet_2s_form_are_refused(write, given, said):
    cfg = dict(ann_file=write(coco_dict()), data_prefix=dict(img='')) | given
    exemplars = {key: value for key, value in cfg.items() if key != 'metainfo'}
    kinds = [
        dict(cfg, type='CocoJsonDataset'),
        dict(type='DatasetGroup', datasets=dict(a=dict(cfg, type='CocoDataset'))),
    ]
    kinds += [dict(exemplars, type='ExemplarDataset', pipeline=[])] * ('metainfo' not in given)
    for kind in kinds:
        with pytest.raises(ValueError, match=said):
            DATASETS.build(kind)


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
def test_missing_key_is_named(write, key):
    coco = coco_dict()
    del coco[key]
    path = write(coco)
    with pytest.raises(ValueError, match=f"anns.json is not a COCO annotation file.* '{key}'"):
        build(ann_file=path)


@pytest.mark.parametrize('text', ['{"images": [', '[]', '\x00'])
def test_broken_file_is_named(write, text):
    with pytest.raises(ValueError, match='anns.json is not (COCO JSON|a COCO annotation file)'):
        build(ann_file=write(text))


def test_category_named_twice(write):
    categories = [*CATEGORIES, dict(id=20, name='apple')]
    with pytest.raises(ValueError, match="names categories more than once: 'apple'"):
        build(ann_file=write(coco_dict(categories=categories)))


def test_lazy_dataset_knows_its_classes(write):
    dataset = build(ann_file=write(coco_dict()), lazy_init=True)
    assert not dataset._fully_initialized
    assert dataset.metainfo['classes'] == ('zebra', 'apple', 'mango')
    assert dataset._fully_initialized
    dataset.full_init()
    assert len(dataset) == 2


def test_lazy_dataset_without_its_file_names_no_class_rather_than_a_wrong_one(tmp_path):
    meta = dict(classes=['mango', 'zebra'], palette=[(1, 1, 1), (2, 2, 2)], place='Nairobi')
    dataset = build(ann_file=str(tmp_path / 'gone.json'), lazy_init=True, metainfo=meta)
    assert dataset.metainfo == dict(place='Nairobi')
    with pytest.raises(FileNotFoundError, match='gone.json'):
        len(dataset)


def test_file_is_parsed_once(write, monkeypatch):
    path = write(coco_dict())
    calls = []
    read = coco_json.read_coco
    monkeypatch.setattr(
        coco_json,
        'read_coco',
        lambda content, file, **kw: calls.append(file) or read(content, file, **kw),
    )
    dataset = build(ann_file=path, lazy_init=True)
    _ = dataset.metainfo
    dataset.full_init()
    assert calls == [path]


def test_classes_survive_copies(write):
    dataset = build(ann_file=write(coco_dict()), metainfo=dict(classes=['mango', 'apple']))
    for copy in (pickle.loads(pickle.dumps(dataset)), dataset.get_subset([0])):
        assert copy.metainfo['classes'] == ('apple', 'mango')
        assert names_of_labels(copy)[0] == ['apple', 'mango']


def test_return_classes_gives_the_files_names(write):
    dataset = build(ann_file=write(coco_dict()), return_classes=True)
    assert dataset.get_data_info(0)['text'] == ('zebra', 'apple', 'mango')


def test_coco_metric_reads_the_same_labels(write):
    path = write(coco_dict())
    dataset = build(ann_file=path, metainfo=dict(classes=['mango', 'apple', 'zebra']))
    metric = CocoMetric(ann_file=path, metric='bbox')
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        metric.process(
            {},
            [
                dict(
                    img_id=info['img_id'],
                    ori_shape=(30, 40),
                    pred_instances=dict(
                        bboxes=torch.tensor([i['bbox'] for i in info['instances']]),
                        scores=torch.ones(len(info['instances'])),
                        labels=torch.tensor([i['bbox_label'] for i in info['instances']]),
                    ),
                )
            ],
        )
    result = metric.evaluate(size=len(dataset))
    assert result['coco/bbox_mAP'] == 1.0
