"""Each dataset of a group on its own, equal to mmdet's metric run alone."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric, DumpDetResults
from mmdet.registry import EVALUATOR, METRICS
from mmdet.structures import DetDataSample
from mmengine.evaluator import BaseMetric
from mmengine.structures import InstanceData

ROOT = Path(__file__).resolve().parents[2]
SIZES = dict(pond=5, yard=3, attic=4)  # images
CLASSES = dict(pond=('fish', 'frog'), yard=('hen',), attic=('box', 'bat', 'moth'))


def write_coco(folder: Path, name: str) -> dict:
    """Annotations of a member; returns its meta information. Image ids are the same in all."""
    rng = np.random.default_rng(len(name) * 7 + SIZES[name])
    images = [dict(id=i, file_name=f'{i}.jpg', width=200, height=200) for i in range(SIZES[name])]
    annotations = []
    for image in images:
        for _ in range(3):
            x, y = rng.uniform(0, 90, 2).tolist()
            # large boxes in the pond alone: -1 elsewhere
            side = 100.0 if name == 'pond' else 40.0
            annotations.append(
                dict(
                    id=len(annotations) + 1,  # `alone` is mmdet's, which cannot find an id of 0
                    image_id=image['id'],
                    category_id=int(rng.integers(len(CLASSES[name]))) + 1,
                    bbox=[x, y, side, side],
                    area=side * side,
                    iscrowd=0,
                )
            )
    categories = [dict(id=i + 1, name=c) for i, c in enumerate(CLASSES[name])]
    path = folder / f'{name}.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return dict(name=name, ann_file=str(path), classes=CLASSES[name], size=SIZES[name])


def make_samples(meta: dict, seed: int = 0) -> list[DetDataSample]:
    """Predictions near the truth, every third of a random class."""
    rng = np.random.default_rng(seed)
    data = json.loads(Path(meta['ann_file']).read_text())
    samples = []
    for image in data['images']:
        own = [ann for ann in data['annotations'] if ann['image_id'] == image['id']]
        boxes = np.array([ann['bbox'] for ann in own])
        boxes[:, 2:] += boxes[:, :2]
        boxes += rng.normal(0, 4, boxes.shape)
        labels = np.array([ann['category_id'] - 1 for ann in own])
        labels[::3] = rng.integers(len(meta['classes']))
        sample = DetDataSample(
            metainfo=dict(img_id=image['id'], ori_shape=(200, 200), dataset_name=meta['name'])
        )
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            labels=torch.tensor(labels),
            scores=torch.tensor(rng.random(len(own)), dtype=torch.float32),
        )
        samples.append(sample)
    return samples


def make_evaluator(metas, skipped=(), **metric):
    evaluator = EVALUATOR.build(
        dict(
            type='DatasetGroupEvaluator',
            metrics=dict(type='CocoJsonMetric', metric='bbox') | metric,
        )
    )
    evaluator.dataset_meta = dict(datasets=list(metas), skipped=list(skipped))
    return evaluator


def alone(meta, samples):
    metric = CocoMetric(ann_file=meta['ann_file'], metric='bbox')
    metric.dataset_meta = meta
    metric.process({}, [sample.to_dict() for sample in samples])
    return metric.evaluate(len(samples))


@pytest.fixture
def metas(tmp_path):
    return [write_coco(tmp_path, name) for name in SIZES]


def interleaved(metas):
    """Samples of all members, mixed."""
    samples = [sample for meta in metas for sample in make_samples(meta)]
    return [samples[i] for i in np.random.default_rng(3).permutation(len(samples))]


@pytest.mark.parametrize('kind', ['CocoMetric', 'CocoJsonMetric'])
def test_members_equal_the_metric_alone_and_the_mean_is_theirs(metas, kind):
    evaluator = make_evaluator(metas, type=kind)
    samples = interleaved(metas)
    for start in range(0, len(samples), 5):
        evaluator.process(samples[start : start + 5])
    result = evaluator.evaluate(len(samples))
    single = {meta['name']: alone(meta, make_samples(meta)) for meta in metas}
    for name, values in single.items():
        for key, value in values.items():
            assert result[f'{name}/{key}'] == value
    mean = sum(values['coco/bbox_mAP_50'] for values in single.values()) / 3
    assert 0.1 < mean < 1
    assert result['mean/coco/bbox_mAP_50'] == pytest.approx(mean)
    # only the pond has large boxes
    assert single['yard']['coco/bbox_mAP_l'] == -1
    assert result['mean/coco/bbox_mAP_l'] == single['pond']['coco/bbox_mAP_l'] > 0
    assert result['mean/coco/bbox_mAP_s'] == -1
    assert len(result) == 4 * 6


def test_mean_by_hand():
    from mmdet_dino_r1.evaluation.group_evaluator import mean_over_datasets

    metrics = [dict(ap=0.2, small=-1, own=1), dict(ap=0.4, small=0.5), dict(ap=0.0, small=0.1)]
    assert mean_over_datasets(metrics) == pytest.approx(dict(ap=0.2, small=0.3))
    assert mean_over_datasets([dict(ap=-1)]) == dict(ap=-1)
    assert mean_over_datasets([]) == {}


def test_a_sample_goes_to_its_own_metric_alone(metas):
    evaluator = make_evaluator(metas)
    evaluator.process(interleaved(metas))
    kept = {name: len(member.metric.results) for name, member in evaluator._members.items()}
    assert kept == SIZES


def test_padded_samples_count_once_and_it_can_run_again(metas):
    evaluator = make_evaluator(metas)
    samples = interleaved(metas)
    evaluator.process(samples)
    expected = evaluator.evaluate(len(samples))
    evaluator.process(samples + make_samples(metas[1])[:2])
    assert evaluator.evaluate(len(samples)) == expected


def test_dump_of_out_gets_all_samples(metas, tmp_path):
    evaluator = make_evaluator(metas)
    evaluator.metrics.append(DumpDetResults(out_file_path=str(tmp_path / 'all.pkl')))
    samples = interleaved(metas)
    evaluator.process(samples)
    result = evaluator.evaluate(len(samples))
    dumped = pickle.loads((tmp_path / 'all.pkl').read_bytes())
    assert [(d['dataset_name'], d['img_id']) for d in dumped] == [
        (s.dataset_name, s.img_id) for s in samples
    ]
    assert 'mean/coco/bbox_mAP' in result


def test_files_of_detections_have_the_name_of_their_dataset(metas, tmp_path):
    evaluator = make_evaluator(metas, outfile_prefix=str(tmp_path / 'found'))
    evaluator.process(interleaved(metas))
    evaluator.evaluate(12)
    found = {path.name for path in tmp_path.glob('found*')}
    assert found == {f'found.{name}.bbox.json' for name in SIZES}


def table_of(monkeypatch, evaluator, samples):
    from mmdet_dino_r1.evaluation import group_evaluator

    lines = []
    monkeypatch.setattr(group_evaluator, 'print_log', lambda text, *args, **kw: lines.append(text))
    evaluator.process(samples)
    return evaluator.evaluate(len(samples)), '\n'.join(lines)


def test_table(metas, monkeypatch):
    evaluator = make_evaluator(metas, skipped=['cellar'])
    result, text = table_of(monkeypatch, evaluator, interleaved(metas))
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()]
    assert ['dataset', 'images', 'classes', 'bbox_mAP', 'bbox_mAP_50'] in rows
    values = [f'{result[f"attic/coco/bbox_{key}"]:.3f}' for key in ('mAP', 'mAP_50')]
    assert ['attic', '4', '3', *values] in rows
    assert [
        'mean',
        '',
        '',
        *(f'{result[f"mean/coco/bbox_{k}"]:.3f}' for k in ('mAP', 'mAP_50')),
    ] in rows
    assert text.endswith('mean over 3 of 4 datasets; left out: cellar')


def test_member_without_detections_counts_as_zero(metas, monkeypatch):
    samples = interleaved(metas)
    for sample in samples:
        if sample.dataset_name == 'yard':
            sample.pred_instances = sample.pred_instances[:0]
    result, text = table_of(monkeypatch, make_evaluator(metas), samples)
    assert result['yard/coco/bbox_mAP'] == 0
    others = result['pond/coco/bbox_mAP'] + result['attic/coco/bbox_mAP']
    assert result['mean/coco/bbox_mAP'] == pytest.approx(others / 3)
    assert 'yard: no detections, counts as 0' in text
    assert text.endswith('mean over 3 of 3 datasets')


def test_member_that_was_not_tested_is_left_out(metas, monkeypatch):
    samples = [s for s in interleaved(metas) if s.dataset_name != 'yard']
    result, text = table_of(monkeypatch, make_evaluator(metas), samples)
    assert not any(key.startswith('yard') for key in result)
    assert text.endswith('mean over 2 of 3 datasets; left out: yard')


def test_bad_input(metas):
    with pytest.raises(TypeError, match='the config of one metric.*got list'):
        EVALUATOR.build(dict(type='DatasetGroupEvaluator', metrics=[]))
    with pytest.raises(ValueError, match='tests a dataset of type DatasetGroup'):
        make_evaluator([])
    with pytest.raises(ValueError, match="cannot name a dataset 'pond'"):
        make_evaluator([metas[0], metas[0]])
    with pytest.raises(ValueError, match="cannot name a dataset 'mean'"):
        make_evaluator([metas[0] | dict(name='mean')])
    evaluator = make_evaluator(metas[:2])
    with pytest.raises(ValueError, match="is of dataset 'attic', the group has pond, yard"):
        evaluator.process(make_samples(metas[2]))
    with pytest.raises(ValueError, match="no 'dataset_name'.*must be a DatasetGroup"):
        evaluator.process([dict(img_id=1)])


def test_metric_that_keeps_no_result_per_image(metas):
    @METRICS.register_module(force=True)
    class Forgetful(BaseMetric):
        def __init__(self, ann_file):
            super().__init__(prefix='x')

        def process(self, data_batch, data_samples): ...

        def compute_metrics(self, results): ...

    evaluator = EVALUATOR.build(dict(type='DatasetGroupEvaluator', metrics=dict(type='Forgetful')))
    evaluator.dataset_meta = dict(datasets=metas)
    with pytest.raises(TypeError, match='Forgetful does not keep one result per image'):
        evaluator.process(make_samples(metas[0]))


def evaluate_rank(rank: int, port: int, folder: str) -> None:
    """What a process of a distributed test does; run in its own process."""
    import torch.distributed as dist

    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    metas = json.loads(Path(folder, 'metas.json').read_text())
    samples = interleaved(metas)[:11]
    evaluator = make_evaluator(metas)
    evaluator.process((samples + samples[:1])[rank::2])
    Path(folder, f'{rank}.json').write_text(json.dumps(evaluator.evaluate(11)))
    dist.destroy_process_group()


@pytest.mark.ddp
def test_two_processes(metas, tmp_path):
    from conftest import run_two_ranks  # the file also runs without pytest's path

    (tmp_path / 'metas.json').write_text(json.dumps(metas))
    run_two_ranks(__file__, tmp_path)
    evaluator = make_evaluator(metas)
    evaluator.process(interleaved(metas)[:11])
    expected = evaluator.evaluate(11)
    for rank in (0, 1):
        assert json.loads((tmp_path / f'{rank}.json').read_text()) == expected


if __name__ == '__main__':
    sys.path[:0] = [str(ROOT)]
    from mmengine.registry import init_default_scope

    import mmdet_dino_r1  # noqa: F401  registers everything

    init_default_scope('mmdet')
    evaluate_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
