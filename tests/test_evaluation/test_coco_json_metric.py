"""Equal to mmdet's metric and to pycocotools on sound files, right on those where they are not."""

import copy
import json

import numpy as np
import pytest
import torch
from mmdet.registry import EVALUATOR, METRICS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# ids neither sorted nor dense, names not sorted
CATEGORIES = [dict(id=7, name='zebra'), dict(id=3, name='apple'), dict(id=12, name='mango')]
NAMES = [category['name'] for category in CATEGORIES]
INSIDE = dict(width=200, height=200)


def annotation(number, image, category, box, **more):
    whole = dict(id=number, image_id=image, category_id=category, bbox=box, iscrowd=0)
    return whole | dict(area=box[2] * box[3]) | more


def small(first_id=1):
    """Two images; of each class one box in the first, and an apple in the second."""
    return dict(
        images=[dict(id=5, file_name='a.png', **INSIDE), dict(id=2, file_name='b.png', **INSIDE)],
        categories=CATEGORIES,
        annotations=[
            annotation(first_id, 5, 7, [10, 10, 40, 40]),
            annotation(first_id + 1, 5, 3, [80, 80, 50, 50]),
            annotation(first_id + 2, 5, 12, [20, 100, 60, 60]),
            annotation(first_id + 3, 2, 3, [30, 30, 99, 99]),
        ],
    )


def drawn(seed=0, images=14):
    """Boxes of all sizes, crowds among them, in images whose ids are not in order."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(images * 3)[:images].tolist()
    annotations = []
    for image in ids:
        for _ in range(rng.integers(0, 7)):
            side = float(rng.choice([15, 50, 110]))
            box = [*rng.uniform(0, 90, 2).tolist(), side, side]
            category = int(rng.choice([7, 3, 12]))
            crowd = int(rng.random() < 0.1)
            number = len(annotations) + 1
            annotations.append(annotation(number, image, category, box, iscrowd=crowd))
    images = [dict(id=id_, file_name=f'{id_}.png', **INSIDE) for id_ in ids]
    return dict(images=images, annotations=annotations, categories=CATEGORIES)


def sample(coco, image, found, labels, scores):
    return dict(
        img_id=image['id'],
        img_path=f'/data/{image["file_name"]}',
        ori_shape=(200, 200),
        pred_instances=dict(
            bboxes=torch.tensor(found, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long),
            scores=torch.tensor(scores, dtype=torch.float32),
        ),
    )


def detections(coco, noise=0.0, names=NAMES, seed=1):
    """Every box found, moved by some noise, with few different scores; labels of the names."""
    rng = np.random.default_rng(seed)
    label = {cat['id']: names.index(cat['name']) for cat in coco['categories']}
    samples = []
    for image in coco['images']:
        own = [ann for ann in coco['annotations'] if ann['image_id'] == image['id']]
        boxes = np.array([ann['bbox'] for ann in own], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes += rng.normal(0, noise, boxes.shape)
        labels = [label[ann['category_id']] for ann in own]
        if noise:
            labels[::5] = [int(rng.integers(3))] * len(labels[::5])
        scores = (rng.integers(1, 6, len(own)) / 5).tolist()
        samples.append(sample(coco, image, boxes.tolist(), labels, scores))
    return samples


@pytest.fixture
def write(tmp_path):
    def write_file(coco, name='ann.json'):
        (tmp_path / name).write_text(json.dumps(coco))
        return str(tmp_path / name)

    return write_file


def evaluate(path, samples, kind='CocoJsonMetric', classes=NAMES, **more):
    metric = METRICS.build(dict(type=kind, ann_file=path, **more))
    metric.dataset_meta = dict(classes=tuple(classes))
    metric.process({}, samples)
    return metric.evaluate(len(samples))


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('metric', ['bbox', ['bbox', 'proposal']])
def test_equal_to_mmdets_metric_and_to_pycocotools(write, tmp_path, seed, metric):
    coco = drawn(seed)
    path, samples = write(coco), detections(coco, noise=4, seed=seed + 9)
    prefix = str(tmp_path / 'out')
    ours = evaluate(path, samples, metric=metric, outfile_prefix=prefix)
    assert ours == evaluate(path, samples, 'CocoMetric', metric=metric)
    assert 0.1 < ours['coco/bbox_mAP'] < 0.9 and ours['coco/bbox_mAP_s'] > 0

    truth = COCO(path)
    evaluation = COCOeval(truth, truth.loadRes(f'{prefix}.bbox.json'), 'bbox')
    evaluation.params.maxDets = [100, 300, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, :, 0, -1]
    mean = round(float(precision[precision > -1].mean()), 3)
    assert ours['coco/bbox_mAP'] == mean


@pytest.mark.parametrize(
    'ids',
    [
        [0, 1, 2, 3],
        [-4, -3, -2, -1],
        ['a', 'b', '0', ''],
        [2**53 + n for n in range(4)],
        [2**63 + n for n in range(4)],
        [10**400 + n for n in range(4)],
        [5, 5, 5, 5],
        [None] * 4,
    ],
)
def test_ids_of_annotations_change_nothing(write, ids):
    """By hand: everything is found but the zebra's box, the first one, which is of class mango."""
    coco = small()
    for ann, id_ in zip(coco['annotations'], ids, strict=True):
        ann['id'] = id_
    samples = detections(coco)
    assert evaluate(write(coco), samples)['coco/bbox_mAP'] == 1
    labels = samples[0]['pred_instances']['labels']
    labels[0] = NAMES.index('mango')
    samples[0]['pred_instances']['scores'][:] = torch.tensor([0.1, 0.5, 0.5])
    result = evaluate(write(coco), samples, classwise=True)
    assert result['coco/bbox_mAP'] == 0.667
    assert [result[f'coco/{name}_precision'] for name in NAMES] == [0, 1, 1]


@pytest.mark.parametrize('flag', ['iscrowd', 'ignore'])
def test_what_is_ignored_need_not_be_found(write, flag):
    """Nor does it count against those who find it; mmdet's metric wants ignored boxes found."""
    coco = small()
    samples = detections(coco)
    coco['annotations'][0][flag] = 1  # the only zebra
    path = write(coco)
    result = evaluate(path, samples, classwise=True)
    assert np.isnan(result['coco/zebra_precision'])
    assert result['coco/bbox_mAP'] == result['coco/apple_precision'] == 1
    pred = samples[0]['pred_instances']
    pred['labels'][0] = NAMES.index('apple')  # where an ignored zebra is, there is no apple
    assert evaluate(path, samples)['coco/bbox_mAP'] < 1
    coco['annotations'][3][flag] = 1  # one of the two apples, not found
    samples = detections(small())
    samples[1]['pred_instances']['bboxes'] += 150
    samples[1]['pred_instances']['scores'][:] = 0
    assert evaluate(write(coco), samples)['coco/bbox_mAP'] == 1


def test_mmdets_metric_cannot_find_the_annotation_of_id_0(write):
    """Why there is a metric of our own; mmdet's may mend this one day."""
    coco = small(first_id=0)
    assert evaluate(write(coco), detections(coco), 'CocoMetric')['coco/bbox_mAP'] == 0.667
    assert evaluate(write(coco), detections(coco))['coco/bbox_mAP'] == 1


@pytest.mark.parametrize(
    'renamed',
    [
        str,
        lambda id_: 2**63 + id_,
        lambda id_: 10**30 - id_,
        lambda id_: -id_,
        lambda id_: 2**53 + id_ // 2,
    ],
)
def test_ids_of_images_and_categories(write, tmp_path, renamed):
    coco = small()
    expected = evaluate(write(coco), samples := detections(coco, 6))
    assert 0 < expected['coco/bbox_mAP'] < 1
    other = copy.deepcopy(coco)
    for entry in other['images'] + other['categories']:
        entry['id'] = renamed(entry['id'])
    for ann in other['annotations']:
        ann.update(image_id=renamed(ann['image_id']), category_id=renamed(ann['category_id']))
    for one in samples:
        one['img_id'] = renamed(one['img_id'])
    prefix = f'{tmp_path}/out'
    path = write(other)
    assert evaluate(path, samples, outfile_prefix=prefix) == expected
    assert evaluate(path, samples, outfile_prefix=prefix, format_only=True) == {}
    written = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert {(one['image_id'], one['category_id']) for one in written} <= {
        (image['id'], category['id'])
        for image in other['images']
        for category in other['categories']
    }
    assert len(written) == 4


@pytest.mark.parametrize('order', [NAMES, NAMES[::-1], ['mango', 'zebra', 'apple']])
def test_labels_stand_for_names(write, order):
    """Whatever the order of the classes and of the file; under each name its own value."""
    coco = small()
    coco['annotations'] = coco['annotations'][:3]
    samples = detections(coco, names=order)
    samples[0]['pred_instances']['bboxes'][1] += 100  # the apple
    result = evaluate(write(coco), samples, classes=order, classwise=True)
    precision = {name: result[f'coco/{name}_precision'] for name in NAMES}
    assert precision == dict(zebra=1, apple=0, mango=1)


def test_some_of_the_classes_and_of_the_images(write):
    """What is not tested is not missed."""
    coco = small()
    samples = detections(coco)[:1]
    labels = samples[0]['pred_instances']['labels']
    chosen = {key: value[:2] for key, value in samples[0]['pred_instances'].items()}
    assert labels.tolist() == [0, 1, 2]
    samples[0]['pred_instances'] = chosen
    result = evaluate(write(coco), samples, classes=['zebra', 'apple'])
    assert result['coco/bbox_mAP'] == 1
    assert evaluate(write(coco), samples)['coco/bbox_mAP'] == 0.667


def test_recall_of_proposals_in_another_order_of_images(write):
    """mmdet pairs them with the file's images by position."""
    coco = small()
    coco['annotations'] = coco['annotations'][2:]  # one in each image
    samples = detections(coco)[::-1]
    result = evaluate(write(coco), samples, metric='proposal_fast')
    assert [result[f'coco/AR@{n}'] for n in (100, 300, 1000)] == [1, 1, 1]


@pytest.mark.parametrize(
    'change',
    [
        dict(area=None),
        dict(area='1600'),
        dict(area=float('nan')),
        dict(iscrowd='0'),
        dict(iscrowd=None),
        dict(iscrowd=False),
        dict(ignore='0'),
    ],
)
def test_values_in_other_words(write, change):
    coco = small()
    expected = evaluate(write(coco), samples := detections(coco, 6))
    for ann in coco['annotations']:
        ann.update(change)
    assert evaluate(write(coco), samples) == expected


def test_a_crowd_is_not_missed_and_a_box_that_is_none_not_found(write):
    coco = small()
    samples = detections(coco)
    coco['annotations'][0]['iscrowd'] = '1'
    coco['annotations'].append(annotation(9, 5, 12, [float('nan')] * 4))
    samples[0]['pred_instances']['bboxes'][0] += 100  # the zebra is elsewhere
    assert evaluate(write(coco), samples, classwise=True)['coco/bbox_mAP'] == 1


class TestOtherFiles:
    def build(self, coco, write, **more):
        metric = METRICS.build(dict(type='CocoJsonMetric', ann_file=write(coco), **more))
        metric.dataset_meta = dict(classes=NAMES)
        return metric

    def test_a_class_is_missing(self, write):
        coco = dict(small(), categories=[dict(id=3, name='Apple'), *CATEGORIES[::2]])
        with pytest.raises(
            ValueError, match=r"ann.json has no categories named 'apple' \(near: Apple\).* Set ann_"
        ):
            self.build(coco, write)

    def test_an_image_is_missing(self, write):
        metric = self.build(small(), write)
        coco = small()
        coco['images'][1]['id'] = 6
        with pytest.raises(ValueError, match='ann.json does not list image 6. Set ann_file of the'):
            metric.process({}, detections(coco))

    def test_another_picture_under_its_id(self, write):
        metric = self.build(small(), write)
        samples = detections(small())
        samples[1]['img_path'] = '/data/c.png'
        with pytest.raises(ValueError, match='ann.json lists b.png as image 2, which is /data/c'):
            metric.process({}, samples)
        samples[1]['img_path'] = '/elsewhere/b.jpg'
        metric.process({}, samples)

    def test_no_annotations(self, write, tmp_path):
        coco = small()
        samples = detections(coco)
        del coco['annotations']
        with pytest.raises(ValueError, match=r"ann.json .* has no 'annotations'.*format_only=T"):
            self.build(coco, write)
        prefix = str(tmp_path / 'out')
        metric = self.build(coco, write, format_only=True, outfile_prefix=prefix)
        metric.process({}, samples)
        assert metric.evaluate(2) == {}
        written = json.loads((tmp_path / 'out.bbox.json').read_text())
        assert [(one['image_id'], one['category_id'], one['bbox']) for one in written] == [
            (ann['image_id'], ann['category_id'], ann['bbox']) for ann in small()['annotations']
        ]


def test_each_of_several_datasets_by_its_own_file(write):
    """MultiDatasetsEvaluator shows all images to each metric."""
    cocos = [small(), dict(drawn(), categories=CATEGORIES[:2])]
    cocos[1]['annotations'] = [a for a in cocos[1]['annotations'] if a['category_id'] != 12]
    metrics = [
        dict(type='CocoJsonMetric', ann_file=write(coco, f'{number}.json'))
        for number, coco in enumerate(cocos)
    ]
    evaluator = EVALUATOR.build(
        dict(type='MultiDatasetsEvaluator', metrics=metrics, dataset_prefixes=['a', 'b'])
    )
    sizes = [2, 2 + len(cocos[1]['images'])]
    evaluator.dataset_meta = [
        dict(classes=NAMES[:count], cumulative_sizes=sizes) for count in (3, 2)
    ]
    samples = detections(cocos[0]) + detections(cocos[1])
    evaluator.process(samples)
    result = evaluator.evaluate(len(samples))
    assert result['a/coco/bbox_mAP'] == 1
    assert result['b/coco/bbox_mAP'] == 1
