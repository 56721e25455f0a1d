"""Files whose labels stand for other classes, in a Runner that no check looked at before."""

import json
from copy import deepcopy

import pytest
from mmdet.apis import init_detector
from mmengine.runner import Runner
from test_engine.test_runner import tiny_cfg

from mmdet_dino_r1.utils.safe_files import load_torch_file


@pytest.fixture
def names(tiny_shapes):
    coco = json.loads((tiny_shapes / 'annotations/train.json').read_text())
    return [category['name'] for category in coco['categories']]


@pytest.fixture
def cfg(tiny_shapes, tmp_path, names):
    """Training on a file of all classes but the last, and on one of all but the first."""
    cfg = tiny_cfg(tiny_shapes, tmp_path / 'run')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    coco = json.loads((tiny_shapes / 'annotations/train.json').read_text())
    members = []
    for split, left_out in (('a', names[-1]), ('b', names[0])):
        kept = [category for category in coco['categories'] if category['name'] != left_out]
        ids = {category['id'] for category in kept}
        annotations = [ann for ann in coco['annotations'] if ann['category_id'] in ids]
        path = tmp_path / f'{split}.json'
        path.write_text(json.dumps(dict(coco, categories=kept, annotations=annotations)))
        members.append(dict(cfg.train_dataloader.dataset, ann_file=str(path)))
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=members)
    return cfg


@pytest.mark.parametrize('wrapper', [None, 'RepeatDataset', 'ClassBalancedDataset'])
def test_training_on_two_lists_is_refused(cfg, names, tmp_path, wrapper):
    both = cfg.train_dataloader.dataset
    if wrapper == 'RepeatDataset':
        cfg.train_dataloader.dataset = dict(type=wrapper, times=2, dataset=both)
    elif wrapper:
        both.datasets = [
            dict(type=wrapper, oversample_thr=0.1, dataset=one) for one in both.datasets
        ]
    with pytest.raises(ValueError) as caught:
        Runner.from_cfg(cfg).train()
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}/b.json: its labels stand for '{names[1]}'")
    assert f"those of {tmp_path}/a.json for '{names[0]}'" in said
    everyone = ', '.join(map(repr, names))
    assert f'fixed_classes=True, metainfo=dict(classes=({everyone},))' in said


def test_the_remedy_trains_and_leaves_the_names_in_the_checkpoint(cfg, names, tmp_path):
    for number, member in enumerate(cfg.train_dataloader.dataset.datasets):
        member.fixed_classes = True
        member.metainfo = dict(classes=names, source=number)  # mmdet makes a list of them
    runner = Runner.from_cfg(cfg)
    runner.train()
    dataset = runner.train_dataloader.dataset
    for member, first, last in zip(dataset.datasets, (0, 1), (2, 3), strict=True):
        infos = [member.get_data_info(index) for index in range(len(member))]
        labels = {box['bbox_label'] for info in infos for box in info['instances']}
        assert (min(labels), max(labels)) == (first, last)
    checkpoint = tmp_path / 'run' / 'epoch_1.pth'
    meta = load_torch_file(checkpoint)['meta']['dataset_meta']
    assert meta == dict(classes=tuple(names), cumulative_sizes=dataset.cumulative_sizes)
    model = init_detector(cfg, str(checkpoint), device='cpu')
    assert model.dataset_meta['classes'] == tuple(names)


@pytest.mark.parametrize('kind', ['ConcatDataset', 'DatasetGroup'])
def test_one_metric_for_two_lists_is_refused_before_the_first_step(
    cfg, tiny_shapes, tmp_path, kind
):
    whole = tiny_cfg(tiny_shapes, tmp_path / 'run')
    members = deepcopy(cfg.train_dataloader.dataset.datasets)
    named = dict(zip('ab', members, strict=True))
    members = named if kind == 'DatasetGroup' else members
    whole.val_dataloader.dataset = dict(type=kind, datasets=members)
    runner = Runner.from_cfg(whole)
    with pytest.raises(ValueError, match="b.json: its labels (.*)type='DatasetGroup' in val_data"):
        runner.train()
    assert runner.iter == 0


def test_one_metric_for_two_files_with_the_same_image_ids_is_refused(tiny_shapes, tmp_path):
    """mmdet would count the detections of two images as those of one."""
    cfg = tiny_cfg(tiny_shapes, tmp_path / 'run')
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    both = [dict(val), dict(val, ann_file=train.ann_file)]
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(
        ValueError, match=r'train.json: \d+ image ids, such as \d+, are also in .*val'
    ):
        runner.test()


def test_a_group_trained_on_names_its_classes(cfg, names):
    """mmdet's own tools read them from the checkpoint."""
    members = cfg.train_dataloader.dataset.datasets
    for member in members:
        member.update(fixed_classes=True, metainfo=dict(classes=names))
    cfg.train_dataloader.dataset = dict(
        type='DatasetGroup', datasets=dict(a=members[0], b=members[1])
    )
    dataset = Runner.from_cfg(cfg).build_dataloader(cfg.train_dataloader).dataset
    assert dataset.metainfo['classes'] == tuple(names)
