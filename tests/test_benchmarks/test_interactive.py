"""Protocol Visual-I: each image brings its own prompts, whatever else is in its batch."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import build_tiny, tiny_model_cfg
from mmengine.runner import Runner
from model_variants import JOINT

from .drawn import draw_set
from .runs import assert_same_detections, datasets_in, record_of, run_here

NAMES = {id_: f'thing {id_}' for id_ in range(2, 22, 2)}
# Images of one size take turns with those of another; a batch holds one of one class, one of many
# and one of none. Of some classes an image has several boxes.
CONTENTS = [[2, 2, 2], [4], [6, 8, 10, 12, 14, 16, 18, 20], [2, 20], [], [6, 6], [18, 4, 4], [8]]
CONTENTS += [[10, 10, 10, 2, 2], []]


@pytest.fixture
def coco(tmp_path) -> Path:
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    annotations = draw_set(root / 'val2017', CONTENTS, NAMES)
    (root / 'annotations/instances_val2017.json').write_text(json.dumps(annotations))
    return root


@pytest.fixture
def cfg_for(shipped, coco):
    def build(run='run', batch_size=1, chunk_size=0, seed=0, ann_file=None, joint=False):
        cfg = shipped('dino_r1_swin_t_zeroshot_coco', run, batch_size)
        if joint:
            cfg.model = tiny_model_cfg(test_cfg=cfg.model.test_cfg, **JOINT)
            cfg.load_from = str(coco.parent / 'joint.pth')
            torch.manual_seed(0)
            torch.save(dict(state_dict=build_tiny(**JOINT).state_dict()), cfg.load_from)
        cfg.model.test_cfg.chunk_size = chunk_size
        (dataset,) = datasets_in(cfg)
        dataset.data_root = f'{coco}/'
        dataset.ann_file = ann_file or dataset.ann_file
        cfg.test_evaluator.ann_file = f'{coco}/{dataset.ann_file}'
        cfg.test_evaluator.outfile_prefix = str(coco.parent / run / 'results')
        # the split that the config names for prompts is not there, and not needed
        cfg.default_hooks.prompt_bank.update(protocol='visual_i')
        cfg.default_hooks.prompt_bank.bank.seed = seed
        return cfg

    return build


def results(cfg) -> Path:
    return Path(f'{cfg.test_evaluator.outfile_prefix}.bbox.json')


def prompts_of(cfg) -> dict:
    """The box, in pixels of the image file, that each class of each image was shown by."""
    runner = Runner.from_cfg(cfg)
    prompts = {}
    predict = runner.model.predict

    def recorded(images, samples, *args, **kwargs):
        for sample in samples:
            carried = sample.prompt_instances
            scale = torch.tensor(sample.scale_factor).repeat(2)
            boxes = (carried.bboxes.cpu() / scale).round().int().tolist()
            for label, box in zip(carried.labels.tolist(), boxes, strict=True):
                prompts[sample.img_id, label] = box
        return predict(images, samples, *args, **kwargs)

    runner.model.predict = recorded
    runner.test()
    return prompts


@pytest.mark.parametrize(('chunk_size', 'joint'), [(0, False), (3, False), (3, True)])
def test_an_image_gets_the_same_alone_and_in_a_batch(cfg_for, chunk_size, joint):
    alone = cfg_for('alone', chunk_size=chunk_size, joint=joint)
    batch = cfg_for('batch', 4, chunk_size, joint=joint)
    metrics = run_here(alone)
    assert run_here(batch) == metrics
    assert_same_detections(results(alone), results(batch))

    found = {}
    for item in json.loads(results(batch).read_text()):
        found.setdefault(item['image_id'], []).append(item['category_id'])
    for image_id, classes in enumerate(CONTENTS, 1):
        # all pairs of the ten queries and the classes shown, and nothing where none is
        assert Counter(found.get(image_id)) == Counter({id_: 10 for id_ in classes})

    described = record_of(batch.work_dir)['protocol']
    assert described['name'] == 'visual_i' and described['chunk_size'] == chunk_size
    assert (described['shots'], described['seed']) == (1, 0)


def test_the_exemplar_is_drawn_by_seed_image_and_class_alone(cfg_for, coco):
    usual = prompts_of(cfg_for('usual'))
    truth = json.loads((coco / 'annotations/instances_val2017.json').read_text())
    boxes = {}
    for annotation in truth['annotations']:
        x, y, width, height = annotation['bbox']
        key = annotation['image_id'], list(NAMES).index(annotation['category_id'])
        boxes.setdefault(key, []).append([x, y, x + width, y + height])
    assert usual.keys() == boxes.keys()
    assert all(box in boxes[key] for key, box in usual.items())

    # another order of images and boxes, half of the images and classes gone, another batch size
    few = [image for image in truth['images'] if image['id'] > 2][::-1]
    kept = {image['id'] for image in few}
    some = [
        annotation
        for annotation in truth['annotations'][::-1]
        if annotation['image_id'] in kept and annotation['category_id'] != 8
    ]
    changed = dict(truth, images=few, annotations=some)
    (coco / 'annotations/changed.json').write_text(json.dumps(changed))
    again = prompts_of(cfg_for('again', 4, ann_file='annotations/changed.json'))
    eight = list(NAMES).index(8)
    assert again == {key: box for key, box in usual.items() if key[0] in kept and key[1] != eight}

    other = prompts_of(cfg_for('other', seed=1))
    assert other.keys() == usual.keys() and other != usual
    changed_keys = {key for key in usual if usual[key] != other[key]}
    assert all(len(boxes[key]) > 1 for key in changed_keys)
