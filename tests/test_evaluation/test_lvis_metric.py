"""LVIS metric against lvis-api itself, on a generated set of 1203 categories and few images."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CLASSES = [f'thing_{index:04}' for index in range(1203)]
TESTED = 40  # categories that the images hold


def lvis_json(num_images=12, seed=0):
    """Images 10, 20, ... with boxes of the first categories; some are negatives or not exhausted.

    Category ids are not their labels: 2, 4, 6, ...
    """
    rng = np.random.default_rng(seed)
    categories = [
        dict(id=2 * index + 2, name=name, frequency='rcf'[index % 3])
        for index, name in enumerate(CLASSES)
    ]
    images, annotations = [], []
    for image in range(10, 10 * num_images + 10, 10):
        labels = rng.choice(TESTED, 14, replace=False)
        images.append(
            dict(
                id=image,
                coco_url=f'http://host/val2017/{image}.jpg',
                width=400,
                height=300,
                neg_category_ids=[2 * int(label) + 2 for label in labels[8:]],
                not_exhaustive_category_ids=[2 * int(label) + 2 for label in labels[7:8]],
            )
        )
        for label in [*labels[:8], *labels[:4]]:
            x, y = rng.uniform(0, 200, 2).tolist()
            width, height = (float(side) for side in rng.choice([20, 60, 150], 2))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=2 * int(label) + 2,
                    bbox=[x, y, width, height],
                    area=width * height,
                    segmentation=[[x, y, x + width, y, x + width, y + height]],
                )
            )
    return dict(images=images, annotations=annotations, categories=categories)


def samples_of(data, per_image=120, seed=1, scores=200):
    """Detections near the truth and at random, with many equal scores; one image has none."""
    rng = np.random.default_rng(seed)
    truth = {image['id']: [] for image in data['images']}
    for ann in data['annotations']:
        x, y, width, height = ann['bbox']
        truth[ann['image_id']].append(([x, y, x + width, y + height], ann['category_id'] // 2 - 1))
    samples = []
    for index, (image, found) in enumerate(truth.items()):
        count = 0 if index == 3 else per_image
        picked = rng.integers(0, len(found), count)
        boxes = np.array([found[i][0] for i in picked], np.float32).reshape(-1, 4)
        labels = np.array([found[i][1] for i in picked], np.int64)
        wrong = rng.random(count) < 0.3
        labels[wrong] = rng.integers(0, TESTED + 20, wrong.sum())
        boxes += rng.normal(0, 6, boxes.shape).astype(np.float32)
        samples.append(
            dict(
                img_id=image,
                pred_instances=dict(
                    bboxes=torch.from_numpy(boxes),
                    labels=torch.from_numpy(labels),
                    scores=torch.from_numpy(rng.integers(1, scores, count) / scores).float(),
                ),
            )
        )
    return samples


@pytest.fixture(scope='module')
def data():
    return lvis_json()


@pytest.fixture(scope='module')
def ann_file(data, tmp_path_factory):
    path = tmp_path_factory.mktemp('lvis') / 'lvis.json'
    path.write_text(json.dumps(data))
    return str(path)


def make_metric(ann_file, classes=CLASSES, **kwargs):
    from mmdet.registry import METRICS

    metric = METRICS.build(dict(type='LVISBoxMetric', ann_file=ann_file, **kwargs))
    metric.dataset_meta = dict(classes=classes)
    return metric


def run(metric, samples, batch=5):
    for start in range(0, len(samples), batch):
        metric.process({}, samples[start : start + batch])
    return metric.evaluate(len(samples))


def lvis_api(ann_file, detections, max_dets):
    """AP by lvis-api alone; the caller gives numpy its ``float`` back."""
    from lvis import LVIS, LVISEval, LVISResults

    truth = LVIS(ann_file)
    evaluation = LVISEval(truth, LVISResults(truth, detections, max_dets=max_dets), 'bbox')
    evaluation.params.max_dets = max_dets
    evaluation.run()
    return {key: value for key, value in evaluation.results.items() if key.startswith('AP')}


def test_equals_lvis_api(data, ann_file, tmp_path, monkeypatch):
    limits = dict(dets_per_image=60, fixed_ap_dets=12)
    metrics = run(
        make_metric(ann_file, outfile_prefix=str(tmp_path / 'new/folder/all'), **limits),
        samples_of(data),
    )
    monkeypatch.setattr(np, 'float', float, raising=False)
    standard = lvis_api(ann_file, str(tmp_path / 'new/folder/all.bbox.json'), 60)
    fixed = lvis_api(ann_file, str(tmp_path / 'new/folder/all.fixed.bbox.json'), -1)
    assert standard.keys() == {f'AP{x}' for x in ('', 50, 75, *'smlrcf')}
    expected = {f'lvis/bbox_{key}': value for key, value in standard.items()}
    assert metrics == expected | {f'lvis_fixed_ap/{key}': value for key, value in fixed.items()}
    assert all(isinstance(value, float) for value in metrics.values())
    assert 0.1 < metrics['lvis/bbox_AP'] < 0.9
    assert metrics['lvis/bbox_AP'] != metrics['lvis_fixed_ap/AP']


def test_limits_keep_what_lvis_api_would(data, ann_file, tmp_path, monkeypatch):
    """The whole stream, cut by lvis-api per image, and by hand per category."""
    samples = samples_of(data)
    prefix = str(tmp_path / 'all')
    run(make_metric(ann_file, outfile_prefix=prefix), samples)
    stream = json.loads(Path(f'{prefix}.bbox.json').read_text())
    assert len(stream) == 11 * 120
    metrics = run(make_metric(ann_file, dets_per_image=60, fixed_ap_dets=12), samples)
    monkeypatch.setattr(np, 'float', float, raising=False)
    for key, value in lvis_api(ann_file, [dict(det) for det in stream], 60).items():
        assert metrics[f'lvis/bbox_{key}'] == value
    best = []
    for category in {det['category_id'] for det in stream}:
        own = [det for det in stream if det['category_id'] == category]
        best += sorted(own, key=lambda det: -det['score'])[:12]  # stable: by image, by place
    best.sort(key=lambda det: det['image_id'])
    for key, value in lvis_api(ann_file, best, -1).items():
        assert metrics[f'lvis_fixed_ap/{key}'] == value


@pytest.mark.parametrize('ids', [(1, 2), (0, 1), (7, 7), ('a', 'b'), (None, None)])
def test_by_hand(tmp_path, ids):
    # Two images hold a cat each. Image 1: a wrong box at 0.9, the right one at 0.8; image 2: a
    # miss. Recall reaches 1/2 at precision 1/2: 51 of 101 recall levels at 1/2. Whatever the ids of
    # the annotations: of them, lvis-api takes 0 for no match.
    # Keeping one detection per image or per category leaves the wrong box alone.
    judged = dict(neg_category_ids=[], not_exhaustive_category_ids=[])
    size = dict(width=100, height=100)
    images = [dict(size, id=i, file_name=f'{i}.jpg', **judged) for i in (1, 2)]
    annotations = [
        dict(id=id_, image_id=i, category_id=1, bbox=[10, 10, 20, 20], area=400)
        for i, id_ in enumerate(ids, start=1)
    ]
    categories = [
        dict(id=1, name='cat', frequency='f'),
        dict(id=2, name='dog', frequency='r'),
    ]
    path = tmp_path / 'two.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    boxes = torch.tensor([[60.0, 60, 90, 90], [10, 10, 30, 30], [10, 10, 30, 30]])
    # the dog is not judged on image 1, so it costs nothing; classes in another order than ids
    found = dict(bboxes=boxes, scores=torch.tensor([0.9, 0.8, 1.0]), labels=torch.tensor([1, 1, 0]))
    empty = {key: value[:0] for key, value in found.items()}
    samples = [dict(img_id=1, pred_instances=found), dict(img_id=2, pred_instances=empty)]

    metrics = run(make_metric(str(path), ['dog', 'cat']), samples)
    for key in ('', 50, 75, 's', 'f'):
        assert metrics[f'lvis/bbox_AP{key}'] == pytest.approx(51 / 101 / 2)
        assert metrics[f'lvis_fixed_ap/AP{key}'] == pytest.approx(51 / 101 / 2)
    for key in 'mlrc':
        assert metrics[f'lvis_fixed_ap/AP{key}'] == -1

    one = make_metric(str(path), ['dog', 'cat'], dets_per_image=2, fixed_ap_dets=1)
    metrics = run(one, samples)
    assert metrics['lvis/bbox_AP'] == metrics['lvis_fixed_ap/AP'] == 0


def test_order_and_batches_change_nothing(data, ann_file):
    samples = samples_of(data, scores=5)  # nearly all scores are equal to others
    limits = dict(dets_per_image=40, fixed_ap_dets=9)
    first = run(make_metric(ann_file, **limits), samples)
    assert run(make_metric(ann_file, **limits), samples[::-1], batch=1) == first


def test_compaction_changes_nothing(data, ann_file, monkeypatch):
    samples = samples_of(data, scores=5)
    limits = dict(dets_per_image=40, fixed_ap_dets=9)
    expected = run(make_metric(ann_file, **limits), samples)
    metric = make_metric(ann_file, **limits)
    monkeypatch.setattr(type(metric), 'max_held', 100)
    metric = make_metric(ann_file, **limits)
    held = []
    for sample in samples:
        metric.process({}, [sample])
        held.append(sum(len(found) for _, found in metric.results))
    assert max(held) < len(samples) * 120 - 200
    assert len(metric.results) < len(samples)
    assert metric.evaluate(0) == expected


def test_prefix_goes_in_front_and_metric_can_run_again(data, ann_file):
    metric = make_metric(ann_file, prefix='mine')
    first = run(metric, samples_of(data))
    assert {key.split('/')[0] for key in first} == {'mine'}
    assert 'mine/lvis/bbox_APr' in first and 'mine/lvis_fixed_ap/AP' in first
    assert run(metric, samples_of(data)) == first


def test_no_detections(data, ann_file, tmp_path):
    nothing = samples_of(data, per_image=0)
    metrics = run(make_metric(ann_file, outfile_prefix=str(tmp_path / 'none')), nothing)
    assert metrics['lvis/bbox_AP'] == metrics['lvis_fixed_ap/AP'] == 0
    assert json.loads((tmp_path / 'none.fixed.bbox.json').read_text()) == []
    assert make_metric(ann_file).evaluate(0) == metrics


def test_two_ranks_with_padded_samples(data, ann_file):
    from mmdet_dino_r1.evaluation.lvis_metric import join_parts

    samples = samples_of(data)
    expected = run(make_metric(ann_file), samples)
    ranks = [make_metric(ann_file), make_metric(ann_file)]
    ranks[0].process({}, samples[::2])
    ranks[1].process({}, samples[1::2] + samples[:3])  # three images twice
    metrics = ranks[0].compute_metrics([join_parts(rank.results) for rank in ranks])
    assert metrics == expected


def test_without_lvis_the_metric_says_how_to_install_it(ann_file, monkeypatch):
    for name in [name for name in sys.modules if name.split('.')[0] == 'lvis']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, 'mmdet_dino_r1.evaluation.lvis_api', raising=False)
    monkeypatch.setitem(sys.modules, 'lvis', None)
    with pytest.raises(ImportError, match='pip install --no-deps lvis'):
        make_metric(ann_file)


def evaluate_rank(rank: int, port: int, folder: str) -> None:
    """What a process of a distributed test does; run in its own process."""
    import torch.distributed as dist

    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    data = json.loads(Path(folder, 'lvis.json').read_text())
    samples = samples_of(data)
    own = (samples + samples[:1])[rank::2]  # as the sampler pads 11 images
    metrics = run(make_metric(f'{folder}/lvis.json', fixed_ap_dets=9), own)
    Path(folder, f'{rank}.json').write_text(json.dumps(metrics))
    dist.barrier()  # with gloo of PyTorch 2.1 a rank waits for ever for one that left before
    dist.destroy_process_group()


@pytest.mark.ddp
def test_two_processes(tmp_path):
    from conftest import run_two_ranks  # the file also runs without pytest's path

    data = lvis_json(num_images=11)
    (tmp_path / 'lvis.json').write_text(json.dumps(data))
    run_two_ranks(__file__, tmp_path)
    metric = make_metric(str(tmp_path / 'lvis.json'), fixed_ap_dets=9)
    expected = run(metric, samples_of(data))
    for rank in (0, 1):
        assert json.loads((tmp_path / f'{rank}.json').read_text()) == expected


def test_a_spelling_of_mmdet_is_found_by_its_place(data, ann_file):
    classes = [*CLASSES[:-1], 'thing_12020']
    samples = samples_of(data)
    assert run(make_metric(ann_file, classes), samples) == run(make_metric(ann_file), samples)


@pytest.mark.parametrize('classes', [['thing_0003', 'think_0002'], ['zebra', *CLASSES[1:]]])
def test_unknown_class(ann_file, classes):
    unknown = next(name for name in classes if name not in CLASSES)
    with pytest.raises(ValueError, match=f'lvis.json has no categories named {unknown!r}'):
        make_metric(ann_file, classes)


def test_image_of_another_set(data, ann_file):
    sample = SimpleNamespace(**samples_of(data)[0])
    with pytest.raises(ValueError, match='Image 7 is not in .*lvis.json'):
        make_metric(ann_file).process({}, [dict(img_id=7, pred_instances=sample.pred_instances)])


@pytest.mark.parametrize(
    ('part', 'key'),
    [
        ('images', 'neg_category_ids'),
        ('images', 'not_exhaustive_category_ids'),
        ('categories', 'frequency'),
    ],
)
def test_json_of_another_format(tmp_path, part, key):
    data = lvis_json(num_images=2)
    del data[part][1][key]
    path = tmp_path / 'coco.json'
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"coco.json: {part}: id .* lacks '{key}'.*CocoJsonM"):
        make_metric(str(path))


@pytest.mark.parametrize('text', ['[]', '{"images": []}', '{"images": [], "categories": []}'])
def test_json_without_a_part(tmp_path, text):
    path = tmp_path / 'list.json'
    path.write_text(text)
    with pytest.raises(ValueError, match='list.json is not a COCO annotation file'):
        make_metric(str(path))


def test_broken_and_missing_files(tmp_path):
    (tmp_path / 'cut.json').write_text('{"images": [')
    with pytest.raises(ValueError, match='cut.json is not COCO JSON'):
        make_metric(str(tmp_path / 'cut.json'))
    with pytest.raises(FileNotFoundError, match='none.json'):
        make_metric(str(tmp_path / 'none.json'))


if __name__ == '__main__':
    sys.path[:0] = [str(ROOT)]
    import mmdet_dino_r1  # noqa: F401  registers everything

    evaluate_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
