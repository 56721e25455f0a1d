"""The shipped COCO configs, closed-set and zero-shot, on sets laid out as COCO's is."""

import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .drawn import draw_set, put_truth_on_detections
from .runs import REAL_DATA, assert_same_detections, datasets_in, record_of, run_here, run_script

CLOSED_SET, ZERO_SHOT = 'dino_r1_swin_t_coco', 'dino_r1_swin_t_zeroshot_coco'
# ids with gaps, as COCO's
NAMES = {1: 'person', 2: 'bicycle', 3: 'car', 13: 'stop sign', 27: 'backpack', 90: 'toothbrush'}


@pytest.fixture
def coco(tmp_path) -> Path:
    """``data/coco/`` with six classes, crowds, and images with nothing on them."""
    contents = [[], [1, 90, 1], [2, 13, 27], [3], [27, 2], [90, 90, 90, 13]] * 2
    for split, first_id in (('train', 10), ('val', 100)):
        drawn = draw_set(tmp_path / f'coco/{split}2017', contents, NAMES, first_id, first_id)
        drawn['annotations'][-1]['iscrowd'] = drawn['annotations'][1]['iscrowd'] = 1
        annotate(tmp_path / 'coco', split, drawn)
    return tmp_path / 'coco'


@pytest.fixture
def cards(tmp_path) -> Path:
    """``data/coco/`` with photographs of playing cards."""
    if not REAL_DATA.is_dir():
        pytest.skip('no folder of real photographs (DINO_R1_REAL_DATA)')
    for split, count in (('train', 24), ('val', 12)):
        found = json.loads((REAL_DATA / f'cards/annotations/{split}.json').read_text())
        found['images'] = found['images'][:: len(found['images']) // count]
        kept = {image['id'] for image in found['images']}
        found['annotations'] = [a for a in found['annotations'] if a['image_id'] in kept]
        annotate(tmp_path / 'coco', split, found)
        (tmp_path / f'coco/{split}2017').symlink_to(REAL_DATA / 'cards/images')
    return tmp_path / 'coco'


def annotate(root: Path, split: str, content: dict) -> None:
    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    (root / f'annotations/instances_{split}2017.json').write_text(json.dumps(content))


@pytest.fixture
def cfg_for(shipped, tmp_path):
    def build(name=ZERO_SHOT, run='run', batch_size=1):
        cfg = shipped(name, run, batch_size)
        bank = cfg.default_hooks.prompt_bank.bank
        (dataset,) = datasets_in(cfg)
        for owner in (dataset, cfg.train_dataloader.dataset if name == CLOSED_SET else bank):
            assert owner.data_root == 'data/coco/'
            owner.data_root = f'{tmp_path}/coco/'
        bank.batch_size = 4
        cfg.test_evaluator.ann_file = f'{tmp_path}/coco/{dataset.ann_file}'
        cfg.test_evaluator.outfile_prefix = str(tmp_path / run / 'results')
        return cfg

    return build


def results(cfg) -> Path:
    return Path(f'{cfg.test_evaluator.outfile_prefix}.bbox.json')


def pycocotools(cfg) -> dict:
    """What COCOeval finds in the detections of a run."""
    truth = COCO(cfg.test_evaluator.ann_file)
    evaluation = COCOeval(truth, truth.loadRes(str(results(cfg))), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    keys = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
    return {
        f'coco/bbox_{key}': round(float(value), 3)  # as CocoMetric does
        for key, value in zip(keys, evaluation.stats, strict=False)
    }


@pytest.mark.parametrize('data', ['coco', 'cards'])
def test_metrics_are_pycocotools_for_both_configs(cfg_for, data, request):
    root = request.getfixturevalue(data)
    closed_set = cfg_for(CLOSED_SET, 'closed_set')
    metrics = run_here(closed_set)
    assert metrics == pycocotools(closed_set)
    put_truth_on_detections(Path(closed_set.test_evaluator.ann_file), results(closed_set))

    zero_shot = cfg_for(ZERO_SHOT, 'zero_shot', batch_size=4)
    metrics = run_here(zero_shot)
    assert metrics == pycocotools(zero_shot) and metrics['coco/bbox_mAP'] > 0.05
    # the same weights, prompts and images, at another batch size
    assert_same_detections(results(closed_set), results(zero_shot))
    records = [record_of(cfg.work_dir) for cfg in (closed_set, zero_shot)]
    assert records[0]['protocol'] == records[1]['protocol']
    assert records[0]['protocol']['source'] == f'{root}/annotations/instances_train2017.json'
    assert records[1]['metrics'] == metrics


def test_neither_a_kept_bank_nor_the_order_of_images_counts(cfg_for, coco):
    built = cfg_for(run='built')
    metrics = run_here(built)
    (bank,) = Path(built.work_dir).glob('prompt_banks/*.safetensors')
    path = coco / 'annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    for part in ('images', 'annotations'):
        content[part].reverse()
    path.write_text(json.dumps(content))
    read = cfg_for(run='read')
    read.default_hooks.prompt_bank.bank = str(bank)
    assert run_here(read) == metrics
    found = [json.loads(results(cfg).read_text()) for cfg in (built, read)]
    assert found[0] != found[1]
    for items in found:
        items.sort(key=lambda item: item['image_id'])  # stable: within an image the best first
    assert found[0] == found[1]


@pytest.mark.slow
def test_two_processes_give_the_same(cfg_for, coco):
    one = cfg_for(run='one')
    run_here(one)
    put_truth_on_detections(coco / 'annotations/instances_val2017.json', results(one))
    two = cfg_for(CLOSED_SET, 'two', batch_size=4)
    record = run_script(two, 2)
    assert record['metrics'] == pytest.approx(pycocotools(one), abs=1e-9)
    assert_same_detections(results(one), results(two))
