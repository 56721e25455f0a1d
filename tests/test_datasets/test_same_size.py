"""Batches never mix image sizes."""

import json

import numpy as np
import pytest
import torch
from conftest import build_tiny
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.utils.data import SequentialSampler

SIZES = [(64, 48), (40, 64), (64, 48), (64, 64), (40, 64), (64, 48), (64, 48)]  # (w, h)


@pytest.fixture
def dataset(tmp_path):
    """Seven images of three sizes in mixed order."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index, (width, height) in enumerate(SIZES):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(
            tmp_path / f'{index}.png'
        )
        images.append(dict(id=index, file_name=f'{index}.png', width=width, height=height))
        box = [2, 2, 20, 30]
        annotations.append(
            dict(id=index + 1, image_id=index, category_id=1, bbox=box, area=600, iscrowd=0)
        )
    coco = dict(images=images, annotations=annotations, categories=[dict(id=1, name='thing')])
    (tmp_path / 'a.json').write_text(json.dumps(coco))

    def build(**kwargs):
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(64, 64), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ]
        cfg = dict(
            type='CocoJsonDataset',
            ann_file=str(tmp_path / 'a.json'),
            data_prefix=dict(img=f'{tmp_path}/'),
            pipeline=pipeline,
            test_mode=True,
        )
        return DATASETS.build(cfg | kwargs)

    return build


def sampler_of(dataset, batch_size):
    cfg = dict(type='SameSizeBatchSampler', sampler=SequentialSampler(dataset))
    return DATA_SAMPLERS.build(cfg | dict(batch_size=batch_size))


def ids(dataset):
    return [dataset.get_data_info(index)['img_id'] for index in range(len(dataset))]


def test_test_sets_are_ordered_by_height_then_width(dataset):
    # (h, w): (48, 64) comes first, then (64, 40), then (64, 64); equal sizes keep their order
    assert ids(dataset()) == [0, 2, 5, 6, 1, 4, 3]
    assert ids(dataset(sort_by_size=False)) == list(range(7))
    assert ids(dataset(test_mode=False)) == list(range(7))


def test_batches_by_hand(dataset):
    assert list(sampler_of(dataset(), 3)) == [[0, 1, 2], [3], [4, 5], [6]]
    unsorted = sampler_of(dataset(sort_by_size=False), 3)
    assert list(unsorted) == [[0], [1], [2], [3], [4], [5, 6]]
    assert len(unsorted) == 6 and len(sampler_of(dataset(), 1)) == 7
    # mmdet's analyze_results takes the batch size out of the config
    assert list(sampler_of(dataset(), None)) == [[0], [1], [2], [3], [4], [5], [6]]


def test_nothing_may_be_dropped(dataset):
    with pytest.raises(ValueError, match='drops nothing'):
        DATA_SAMPLERS.build(
            dict(
                type='SameSizeBatchSampler',
                sampler=SequentialSampler(dataset()),
                batch_size=2,
                drop_last=True,
            )
        )


def test_features_do_not_depend_on_the_batch(dataset):
    """They do where sizes are mixed: group norms average over the padding."""
    images, model = dataset(), build_tiny().eval()

    def features(indices):
        batch = pseudo_collate([images[index] for index in indices])
        data = model.data_preprocessor(batch, False)
        with torch.no_grad():
            return model.extract_feat(data['inputs'])[0][0]

    alone = features([0])
    torch.testing.assert_close(features([0, 1, 2]), alone, atol=1e-5, rtol=1e-5)
    mixed = features([0, 4])
    height, width = alone.shape[1:]
    assert (mixed[:, :height, :width] - alone).abs().max() > 1e-2
