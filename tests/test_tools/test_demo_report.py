import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmdet_dino_r1.lab.demo_report import make_rows, read_split
from mmdet_dino_r1.lab.training.log import read_run
from mmdet_dino_r1.testing import ShapesConfig, generate_shapes
from mmdet_dino_r1.tools.demo_report import main

TRAIN = dict(lr=1e-4, loss=3.0, loss_cls=1.0, loss_bbox=0.5, loss_iou=0.7, epoch=1)
GRQO = dict(grqo_reward_mean=-2.0, grqo_reward_std=0.5, grqo_kl=0.01, loss_grqo_kl=0.001)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    config = ShapesConfig(
        image_size=64,
        num_base_classes=4,
        num_novel_classes=3,
        train_images=12,
        val_images=6,
        val_novel_images=6,
        prompts_novel_images=12,
    )
    return generate_shapes(tmp_path_factory.mktemp('shapes'), config)


@pytest.fixture
def demo(shapes, tmp_path):
    """A finished demo run whose detections are the ground truth."""
    root = tmp_path / 'demo'
    vis_data = root / '20250101_000000' / 'vis_data'
    vis_data.mkdir(parents=True)
    steps = [TRAIN | GRQO | dict(step=step, loss_cls=1 / step) for step in (10, 20, 30)]
    rows = [*steps, {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.3, 'step': 1}]
    (vis_data / 'scalars.json').write_text('\n'.join(map(json.dumps, rows)) + '\n')

    dataset = dict(type='CocoJsonDataset', data_root=f'{shapes}/', data_prefix=dict(img=''))
    dataset['pipeline'] = []
    sources = dict(base=('val', {}), novel=('val_novel', dict(ann_file='prompts_novel')))
    for name, (split, bank) in sources.items():
        stamp = '20250102_000000'
        run = root / name / stamp
        (run / 'vis_data').mkdir(parents=True)
        metrics = {'coco/bbox_mAP': 0.123, 'coco/bbox_mAP_50': 0.456, 'time': 0.1}
        (run / f'{stamp}.json').write_text(json.dumps(metrics))
        if bank:
            bank = dict(
                data_root=f'{shapes}/',
                ann_file='annotations/prompts_novel.json',
                data_prefix=dict(img=''),
            )
        Config(
            dict(
                model=dict(test_cfg=dict(max_per_img=100)),
                train_dataloader=dict(
                    dataset=dict(
                        type='RepeatDataset',
                        times=2,
                        dataset=dataset | dict(ann_file='annotations/train.json'),
                    )
                ),
                test_dataloader=dict(dataset=dataset | dict(ann_file=f'annotations/{split}.json')),
                default_hooks=dict(
                    prompt_bank=dict(type='PromptBankHook', bank=dict(shots=4, seed=1) | bank)
                ),
            )
        ).dump(run / 'vis_data' / 'config.py')
        coco = json.loads((shapes / f'annotations/{split}.json').read_text())
        detections = [
            dict(
                image_id=ann['image_id'],
                bbox=ann['bbox'],
                score=0.9,
                category_id=ann['category_id'],
            )
            for ann in coco['annotations']
        ]
        (root / name / 'results.bbox.json').write_text(json.dumps(detections))
    return root


def test_writes_table_curves_and_figure(demo, shapes, capsys):
    assert main([str(demo), '--rows', '2']) == 0
    table = (demo / 'table.md').read_text()
    assert table in capsys.readouterr().out
    base, novel = (line for line in table.splitlines() if line.startswith(('| base', '| novel')))
    assert base.startswith('| base | 4 | 6 | 12.3 | 45.6 | ')
    assert novel.startswith('| novel | 3 | 6 | 12.3 | 45.6 | ')
    assert f'N = 4 exemplars per class (fewest 4), seed 1, from {shapes}/annotations/train' in table
    assert f'from {shapes}/annotations/prompts_novel.json' in table
    assert '100 detections per image' in table
    for name in ('curves.png', 'detections.png'):
        image = cv2.imread(str(demo / name))
        assert image.std() > 5


def test_rows_hold_truth_detections_and_prompts(demo):
    run = read_split(demo, 'novel')
    rows = make_rows(run, 2)
    assert len(rows) == 2
    for row in rows:
        assert row.image.shape == (64, 64, 3)
        assert 2 <= len(row.class_names) == len(row.prompts) <= 4
        assert all(1 <= len(crops) <= 4 for crops in row.prompts)
        assert set(row.gt_labels) == set(range(len(row.class_names)))
        np.testing.assert_array_equal(row.boxes, row.gt_boxes)
        np.testing.assert_array_equal(row.labels, row.gt_labels)


def test_detection_of_a_class_not_shown_is_marked(demo):
    run = read_split(demo, 'base')
    image_id = make_row_image_id(run)
    absent = dict(image_id=image_id, bbox=[1, 2, 3, 4], score=0.5, category_id=99)
    row = make_rows(replace(run, detections={image_id: [absent]}), 1)[0]
    assert row.labels.tolist() == [-1]
    assert row.boxes.tolist() == [[1, 2, 4, 6]]


def make_row_image_id(run):
    """Image of the first row."""
    name = make_rows(run, 1)[0].title.split(': ')[1]
    return next(image['id'] for image in run.coco['images'] if image['file_name'] == name)


def test_curves_are_those_of_the_newest_training(demo):
    newer = demo / '20250103_000000' / 'vis_data'
    newer.mkdir(parents=True)
    (newer / 'scalars.json').write_text(json.dumps(TRAIN | dict(step=7)) + '\n')
    assert read_run(demo) == [TRAIN | dict(step=7)]


@pytest.mark.parametrize(
    'missing, message',
    [
        (
            '20250101_000000/vis_data/scalars.json',
            '{root} holds no log of a training (<timestamp>/vis_data/scalars.json)',
        ),
        ('base/20250102_000000/20250102_000000.json', 'test the base classes first: mim test'),
        ('novel/20250102_000000/vis_data/config.py', 'config.py is missing; test the novel'),
        (
            'novel/results.bbox.json',
            'results.bbox.json is missing; test the novel classes first: mim test mmdet_dino_r1 '
            'CONFIG --checkpoint CHECKPOINT --work-dir {root}/novel --cfg-options '
            'test_evaluator.outfile_prefix={root}/novel/results',
        ),
    ],
)
def test_missing_input_names_file_and_command(demo, capsys, missing, message):
    (demo / missing).unlink()
    assert main([str(demo)]) == 2
    assert message.format(root=demo) in capsys.readouterr().err
    assert not (demo / 'table.md').exists()
