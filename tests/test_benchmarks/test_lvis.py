"""The shipped LVIS configs on a set of 1203 categories and a handful of images."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from mmdet_dino_r1.structures import load_prompt_bank

from .drawn import draw_set, put_truth_on_detections
from .runs import datasets_in, record_of, run_here, run_script

NAMES = {id_: f'thing {id_}' for id_ in range(1, 1204)}
MINIVAL, VAL = 'dino_r1_swin_t_zeroshot_lvis_minival', 'dino_r1_swin_t_zeroshot_lvis'
FILES = {MINIVAL: 'lvis_v1_minival_inserted_image_name.json', VAL: 'lvis_v1_val.json'}
ONE_CHUNK = dict(chunk_size=0, max_per_chunk=0)
QUERIES = 10  # of the tiny model


def place(lvis: dict, root: Path, folders: list[str], keep_names: bool = False) -> dict:
    """Give images, in turn, to folders of COCO that only their URL names."""
    for index, image in enumerate(lvis['images']):
        name, folder = image.pop('file_name'), folders[index % len(folders)]
        (root / folder).mkdir(exist_ok=True)
        (root / 'new' / name).rename(root / folder / name)
        image['coco_url'] = f'http://images.cocodataset.org/{folder}/{name}'
        if keep_names:
            image['file_name'] = name
    return lvis


def judge(lvis: dict) -> dict:
    """Say which categories are absent from an image, or not all annotated."""
    present = defaultdict(set)
    for annotation in lvis['annotations']:
        present[annotation['image_id']].add(annotation['category_id'])
    for image in lvis['images']:
        mine = sorted(present[image['id']])
        image['not_exhaustive_category_ids'] = mine[:1]
        absent = range(1, 1204, 5)
        image['neg_category_ids'] = [id_ for id_ in absent if id_ not in mine]
    return lvis


@pytest.fixture
def coco(tmp_path) -> Path:
    """``data/coco/`` with LVIS: prompts of all categories on 12 images, 18 more of just one."""
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    rng = np.random.default_rng(0)
    everything = [list(range(1 + i, 1204, 12)) for i in range(12)]
    drawn = {
        'lvis_v1_train.json': (everything + [[1203]] * 8, 1, ['train2017']),
        FILES[VAL]: (rng.integers(1, 1204, (5, 9)).tolist(), 101, ['train2017', 'val2017']),
        FILES[MINIVAL]: (rng.integers(1, 1204, (5, 9)).tolist(), 201, ['val2017']),
    }
    for name, (contents, first_id, folders) in drawn.items():
        lvis = draw_set(root / 'new', contents, NAMES, first_id, first_id)
        place(lvis, root, folders, keep_names=name == FILES[MINIVAL])
        for category in lvis['categories']:
            category['frequency'] = 'rcf'[category['id'] % 3]
        (root / 'annotations' / name).write_text(json.dumps(judge(lvis)))
    return root


@pytest.fixture
def cfg_for(shipped, coco):
    def build(name=MINIVAL, run='run', batch_size=1, bank=None, **test_cfg):
        cfg = shipped(name, run, batch_size)
        cfg.model.test_cfg.update(test_cfg)
        (dataset,) = datasets_in(cfg)
        hook = cfg.default_hooks.prompt_bank
        for owner in (dataset, hook.bank):
            assert owner.data_root == 'data/coco/'
            owner.data_root = f'{coco}/'
        cfg.test_evaluator.ann_file = f'{coco}/{dataset.ann_file}'
        cfg.test_evaluator.outfile_prefix = str(coco.parent / run / 'results')
        hook.bank.update(shots=2, batch_size=4)
        if bank is not None:
            hook.bank = dict(path=str(bank))
        return cfg

    return build


def kept_bank(cfg) -> Path:
    (path,) = Path(cfg.work_dir).glob('prompt_banks/*.safetensors')
    return path


def results(cfg, suffix: str = '') -> Path:
    return Path(f'{cfg.test_evaluator.outfile_prefix}{suffix}.bbox.json')


def annotate_detections(cfg) -> None:
    """Truth that the run found a part of, also among the best of each image."""
    path = Path(cfg.test_evaluator.ann_file)
    put_truth_on_detections(path, results(cfg, '.fixed'))
    path.write_text(json.dumps(judge(json.loads(path.read_text()))))


def lvis_api(cfg, monkeypatch) -> dict:
    """Both APs of what a run wrote, by lvis-api alone."""
    from lvis import LVIS, LVISEval, LVISResults

    monkeypatch.setattr(np, 'float', float, raising=False)
    metrics = {}
    for key, suffix, limit in (('lvis/bbox_', '', 300), ('lvis_fixed_ap/', '.fixed', -1)):
        truth = LVIS(cfg.test_evaluator.ann_file)
        detections = LVISResults(truth, str(results(cfg, suffix)), max_dets=limit)
        evaluation = LVISEval(truth, detections, 'bbox')
        evaluation.params.max_dets = limit
        evaluation.run()
        found = evaluation.get_results()
        metrics |= {key + name: found[name] for name in found if name.startswith('AP')}
    return metrics


def by_image(cfg) -> dict:
    """All detections of a run."""
    found = defaultdict(list)
    for item in json.loads(
        Path(f'{cfg.test_evaluator.outfile_prefix}.fixed.bbox.json').read_text()
    ):
        found[item['image_id']].append(item)
    return found


def assert_alike(first, second, chunk_size: int) -> None:
    """Two runs found the same.

    Only the last of a chunk may be others, where scores are equal but for rounding.
    """
    for one, other in ((first, second), (second, first)):
        there = by_image(other)
        for image_id, found in by_image(one).items():
            lowest = defaultdict(lambda: 1.0)
            candidates = defaultdict(list)
            for item in found:
                chunk = (item['category_id'] - 1) // chunk_size
                lowest[chunk] = min(lowest[chunk], item['score'])
            for item in there[image_id]:
                candidates[item['category_id']].append([1000 * item['score'], *item['bbox']])
            candidates = {key: np.array(value) for key, value in candidates.items()}
            for item in found:
                if item['score'] > lowest[(item['category_id'] - 1) // chunk_size] + 1e-6:
                    off = candidates[item['category_id']] - [1000 * item['score'], *item['bbox']]
                    assert np.abs(off).max(axis=1).min() < 1e-2


def watch(model) -> tuple[list, list]:
    """Sizes of the batches that features are extracted of; queries of each selection."""
    batches, selected = [], []
    extract = model.extract_feat

    def extract_feat(images):
        batches.append(len(images))
        return extract(images)

    model.extract_feat = extract_feat
    model.query_selector.register_forward_hook(lambda *call: selected.append(call[-1].indices))
    return batches, selected


@pytest.mark.slow
@pytest.mark.parametrize('chunks, test_cfg', [(31, {}), (1, ONE_CHUNK)])
def test_both_ways_with_1203_classes(cfg_for, monkeypatch, chunks, test_cfg):
    chunk_size = 40 if chunks == 31 else 1203
    first = cfg_for(run='first', **test_cfg)
    run_here(first)
    annotate_detections(first)
    second = cfg_for(run='second', batch_size=3, bank=kept_bank(first), **test_cfg)
    runner = Runner.from_cfg(second)
    batches, selected = watch(runner.model)
    metrics = runner.test()

    assert metrics == lvis_api(second, monkeypatch)
    for key in ('lvis/bbox_AP', 'lvis_fixed_ap/AP'):
        assert 0.05 < metrics[key] < 0.95
    assert metrics['lvis/bbox_AP'] != metrics['lvis_fixed_ap/AP']
    assert record_of(second.work_dir)['protocol']['chunk_size'] == (40 if chunks == 31 else 0)

    # the bank was built in one run and read in the other, at another batch size
    assert_alike(first, second, chunk_size)
    assert batches == [2, 3] and len(selected) == 2 * chunks

    # in one chunk all classes share the queries, in 31 each chunk selects and keeps its own
    per_image = [
        torch.stack(selected[batch * chunks : (batch + 1) * chunks])[:, image].unique().numel()
        for batch, size in enumerate(batches)
        for image in range(size)
    ]
    found = by_image(second)
    boxes = [len({tuple(item['bbox']) for item in items}) for items in found.values()]
    counts = [Counter((item['category_id'] - 1) // 40 for item in f) for f in found.values()]
    if chunks == 1:
        # (two queries may be clipped to the same box)
        assert set(per_image) == {QUERIES} and set(boxes) <= {QUERIES - 1, QUERIES}
        assert {len(items) for items in found.values()} == {9300}  # max_per_img, of 12030 pairs
    else:
        assert max(per_image) > QUERIES and min(boxes) > 20 * QUERIES
        # max_per_chunk of 400 pairs; the last chunk has three classes
        assert counts == [{chunk: 300 if chunk < 30 else 30 for chunk in range(31)}] * 5


@pytest.mark.slow
def test_the_bank_reads_what_it_needs_and_order_does_not_count(cfg_for, coco, monkeypatch):
    first = cfg_for(VAL, 'first', **ONE_CHUNK)
    run_here(first)
    annotate_detections(first)
    expected = lvis_api(first, monkeypatch)
    bank = load_prompt_bank(kept_bank(first))
    train = json.loads((coco / 'annotations/lvis_v1_train.json').read_text())
    assert bank.provenance['images_in_file'] == len(train['images']) == 20
    needed = set(bank.exemplars.file_names)
    assert 12 <= len(needed) == bank.provenance['num_images'] <= 14

    for image in train['images']:
        path = '/'.join(image['coco_url'].split('/')[-2:])
        if path not in needed:
            (coco / path).unlink()
    for name in ('lvis_v1_train.json', FILES[VAL]):
        path = coco / 'annotations' / name
        content = json.loads(path.read_text())
        for part in ('images', 'annotations'):
            content[part].reverse()
        path.write_text(json.dumps(content))
    second = cfg_for(VAL, 'second', **ONE_CHUNK)
    assert run_here(second) == expected
    for suffix in ('', '.fixed'):
        assert results(first, suffix).read_bytes() == results(second, suffix).read_bytes()


@pytest.mark.slow
def test_two_processes_give_the_same(cfg_for, monkeypatch):
    one = cfg_for(VAL, 'one')
    run_here(one)
    annotate_detections(one)
    two = cfg_for(VAL, 'two')
    record = run_script(two, 2)
    assert record['metrics'] == pytest.approx(lvis_api(one, monkeypatch), abs=1e-6)
    assert_alike(one, two, 40)
