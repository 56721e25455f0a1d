"""Bad data in real runs: the file is named, or training goes on with what is good."""

import json
import shutil
from argparse import Namespace

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch
from mmengine.config import Config
from mmengine.runner import Runner
from test_engine.test_runner import scalars, tiny_cfg

from mmdet_dino_r1.checks.data import explain_data
from mmdet_dino_r1.datasets import CocoJsonDataset, coco_json
from mmdet_dino_r1.tools import build_prompt_bank, check_data

NAN, INF = float('nan'), float('inf')
LOAD = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]


@pytest.fixture
def shapes(tiny_shapes, tmp_path):
    """A shapes set of one's own, to be damaged."""
    return shutil.copytree(tiny_shapes, tmp_path / 'shapes')


def change(path, change_it):
    """Edit a JSON file in place."""
    coco = json.loads(path.read_text())
    change_it(coco)
    path.write_text(json.dumps(coco))


def train_set(shapes, **more):
    return CocoJsonDataset(
        ann_file=str(shapes / 'annotations/train.json'),
        data_prefix=dict(img=str(shapes)),
        pipeline=more.pop('pipeline', LOAD),
        **more,
    )


# --- annotations ------------------------------------------------------------------------

BOXES = [
    [NAN, 4, 20, 20],
    [4, 4, NAN, NAN],
    [INF, 4, 20, 20],
    [4, 4, INF, 20],
    [40, 40, -20, -20],
    [-1e30, -1e30, 2e30, 2e30],
    [100, 100, 20, 20],
    [10, 10, 0, 0],
]


@pytest.mark.parametrize('kind', ['CocoJsonDataset', 'CocoDataset'])
def test_training_goes_on_without_the_boxes_that_are_none(shapes, tmp_path, kind):
    """With the check switched off: bad boxes, an unknown category, an image of width zero."""
    names = []

    def spoil(coco):
        for ann, box in zip(coco['annotations'], BOXES, strict=False):
            ann.update(bbox=box, area=400)
        coco['annotations'][8]['category_id'] = 77
        coco['images'][-1]['width'] = 0
        names.extend(category['name'] for category in coco['categories'])

    change(shapes / 'annotations/train.json', spoil)
    cfg = tiny_cfg(shapes, tmp_path / f'run {kind}')
    cfg.train_dataloader.dataset.type = kind
    if kind == 'CocoDataset':
        cfg.train_dataloader.dataset.metainfo = dict(classes=names)
    cfg.train_cfg.max_epochs = 1
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    losses = [line['loss'] for line in scalars(tmp_path / f'run {kind}')]
    assert len(losses) == 3 and all(0 < loss < 1e4 for loss in losses)
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


@pytest.mark.parametrize('box', [[NAN, 4, 24, 30], [4, 4, INF, 30], [24, 30, 4, 4]])
def test_boxes_not_finite_or_inverted_in_the_model_stop_before_the_weights(box):
    """A dataset or pipeline of one's own may let them through."""
    model = build_tiny(dict(kl_weight=0.04)).train()
    model.reference_model.refresh(model)
    with pytest.raises(FloatingPointError, match='image id 0 has a box'):
        model.loss(*make_batch([([box], [1]), TWO_IMAGES[1]]))
    assert all(p.grad is None and torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize(
    ('owner', 'key', 'value', 'message'),
    [
        ('annotations', 'bbox', None, "annotation 1 of image 1 lacks 'bbox'"),
        ('annotations', 'bbox', [1, 2, 3], r'of image 1 has bbox=\[1, 2, 3\], which is not four'),
        ('annotations', 'image_id', None, "annotation 1 of image [?] lacks 'image_id'"),
        ('images', 'width', None, 'image 1 has width=None, which is no number'),
        ('images', 'width', 'wide', "image 1 has width='wide', which is no number"),
        ('images', 'id', None, "'images' has an entry with id=None"),
        ('categories', 'name', None, "'categories' has an entry with name=None"),
    ],
)
def test_entries_without_a_key_are_named(shapes, owner, key, value, message):
    def spoil(coco):
        if value is None:
            del coco[owner][0][key]
        else:
            coco[owner][0][key] = value

    change(shapes / 'annotations/train.json', spoil)
    with pytest.raises(ValueError, match=f'train.json.*{message}'):
        train_set(shapes)


def test_sets_without_images_are_named(shapes):
    with pytest.raises(ValueError, match="filter_cfg={'min_size': 99} leaves none of its 12 "):
        train_set(shapes, filter_cfg=dict(min_size=99))
    change(shapes / 'annotations/train.json', lambda coco: coco.update(images=[], annotations=[]))
    with pytest.raises(ValueError, match=r'train\.json lists no image'):
        train_set(shapes)


def test_a_test_set_without_annotations(shapes, tmp_path):
    """Its detections are written down; trained on or evaluated, it is refused before the model."""
    val = shapes / 'annotations/val.json'
    images = {image['id'] for image in json.loads(val.read_text())['images']}
    change(val, lambda coco: coco.pop('annotations'))
    cfg = tiny_cfg(shapes, tmp_path / 'run')
    config = tmp_path / 'mine.py'

    def explained(stage):
        args = Namespace(config='mine.py')
        return explain_data(Config.fromfile(config), args, stage) or ''

    cfg.dump(config)
    for stage in ('train', 'test'):
        assert 'val.json: without annotations: it can only be tested' in explained(stage)
        assert 'set format_only=True and outfile_prefix=PREFIX' in explained(stage)
    with pytest.raises(ValueError, match="val.json .* has no 'annotations'.*format_only=True"):
        Runner.from_cfg(cfg).test()
    group = cfg.copy()
    group.test_dataloader.dataset = dict(
        type='DatasetGroup', datasets=dict(a=cfg.test_dataloader.dataset)
    )
    metric = dict(type='CocoJsonMetric', metric='bbox')
    group.test_evaluator = dict(_delete_=True, type='DatasetGroupEvaluator', metrics=metric)
    group.dump(config)
    assert 'val.json: without annotations: it can only be tested' in explained('test')
    cfg.test_evaluator.update(format_only=True, outfile_prefix=str(tmp_path / 'found'))
    cfg.experiment_name = cfg.visualizer.name = f'{tmp_path.name} written'
    cfg.dump(config)
    assert explained('test') == ''
    assert Runner.from_cfg(cfg).test() == {}
    found = json.loads((tmp_path / 'found.bbox.json').read_text())
    assert {one['image_id'] for one in found} == images
    cfg.train_dataloader.dataset.ann_file = 'annotations/val.json'
    with pytest.raises(ValueError, match="val.json .* has no 'annotations'"):
        Runner.build_dataloader(cfg.train_dataloader, seed=0)


# --- images -----------------------------------------------------------------------------


def first_image(shapes):
    coco = json.loads((shapes / 'annotations/train.json').read_text())
    return shapes / coco['images'][0]['file_name']


CONTENTS = {
    'cut off': lambda content: content[: len(content) // 2],
    'text': lambda _: b'no image',
    'empty': lambda _: b'',
}


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('kind', [*CONTENTS])
def test_an_unreadable_image_is_named_whatever_reads_it(shapes, kind, backend):
    path = first_image(shapes)
    path.write_bytes(CONTENTS[kind](path.read_bytes()))
    dataset = train_set(shapes, pipeline=[dict(LOAD[0], imdecode_backend=backend), *LOAD[1:]])
    with pytest.raises(ValueError) as error:
        dataset[0]
    assert str(error.value).startswith(f'{path} cannot be read as an image: ')
    assert 'check_data CONFIG --images' in str(error.value)
    assert 'skip_unreadable=True' in str(error.value)


def test_a_worker_says_which_image_it_could_not_read(shapes, tmp_path):
    path = first_image(shapes)
    path.write_bytes(b'')
    cfg = tiny_cfg(shapes, tmp_path / 'worker')
    cfg.train_dataloader.update(num_workers=1)
    batches = iter(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    with pytest.raises(ValueError, match=f'{path} cannot be read as an image'):
        list(batches)
    batches._shutdown_workers()  # the garbage collector would wait for them for 5 s


def test_unreadable_images_may_be_skipped_in_training_alone(shapes, monkeypatch):
    path = first_image(shapes)
    path.write_bytes(b'')
    said = []
    monkeypatch.setattr(coco_json, 'print_log', lambda text, *_: said.append(text))
    sample = train_set(shapes, skip_unreadable=True)[0]['data_samples']
    assert sample.img_path != str(path)
    assert said[0].startswith(f'{path} cannot be read as an image, another one is taken: ')
    tested = train_set(shapes, skip_unreadable=True, test_mode=True)
    with pytest.raises(ValueError, match='cannot be read'):
        tested[0]


def test_a_step_that_fails_on_an_image_names_it(shapes):
    dataset = train_set(shapes, pipeline=[LOAD[0], dict(type='Resize', scale=(0, 0))])
    with pytest.raises(ValueError, match=f'{first_image(shapes)}: a step of the pipeline fails'):
        dataset[0]
    # whose error has no words
    dataset = train_set(shapes, pipeline=[LOAD[0], dict(type='FilterAnnotations')])
    with pytest.raises(ValueError, match='a step of the pipeline fails: AssertionError'):
        dataset[0]


# --- names ------------------------------------------------------------------------------


def test_spaces_and_other_alphabets_in_every_path(tiny_shapes, tmp_path):
    """Data, images, classes, config, work dir, bank: checked, trained, validated and tested."""
    root = shutil.copytree(tiny_shapes, tmp_path / 'Größe 数据 set')
    for split in ('train', 'val'):

        def rename(coco):
            for image in coco['images']:
                old = root / image['file_name']
                image['file_name'] = image['file_name'].replace(old.stem, f'bild é {old.stem}')
                old.rename(root / image['file_name'])
            for category in coco['categories']:
                category['name'] = f'{category["name"]} 猫'

        change(root / 'annotations' / f'{split}.json', rename)
    work = tmp_path / 'läufe 实验'
    cfg = tiny_cfg(root, work)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    config = tmp_path / 'конфиг 1.py'
    cfg.dump(config)
    assert check_data.main([str(config), '--images']) == 0
    runner = Runner.from_cfg(Config.fromfile(config))
    runner.train()
    assert all(name.endswith(' 猫') for name in runner.model.prompt_bank.class_names)

    bank = tmp_path / 'банк 1.safetensors'
    weights = str(work / 'epoch_1.pth')
    assert build_prompt_bank.main([str(config), weights, '--shots', '1', '--out', str(bank)]) == 0
    cfg = tiny_cfg(root, tmp_path / 'prüfung 实验')
    cfg.default_hooks.prompt_bank.bank = str(bank)
    cfg.load_from = weights
    assert 'coco/bbox_mAP' in Runner.from_cfg(cfg).test()
