"""Views of a tiny model's queries, against the same figures computed independently."""

import numpy as np
import pytest
import torch
from conftest import CONFIGS, TWO_IMAGES, build_tiny, make_batch, with_prompts
from mmdet.registry import DATASETS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.config import Config

from mmdet_dino_r1.lab.query_view.collect import view_dataset, view_queries
from mmdet_dino_r1.structures import PromptBank

NAMES = [f'class {label}' for label in range(10)]


def banked(*args, labels=(1, 2, 5, 7), **kwargs):
    """A tiny model with a bank for a few labels."""
    model = build_tiny(*args, **kwargs)
    names = tuple(NAMES[label] for label in labels)
    model.set_prompt_bank(PromptBank(names, torch.randn(len(labels), 256), labels=labels))
    return model


def expected_rewards(view, size=64):
    """Minus the lowest of focal 2 + L1 5 + GIoU 2, written out."""
    scores, boxes = torch.tensor(view.scores), torch.tensor(view.boxes)
    gts = torch.tensor(view.truth.gt_boxes)
    positive = -(scores + 1e-12).log() * 0.25 * (1 - scores) ** 2
    negative = -(1 - scores + 1e-12).log() * 0.75 * scores**2
    prompts = torch.tensor(view.truth.gt_prompts)
    focal = (positive - negative)[..., prompts] + negative.sum(-1, keepdim=True)
    distance = (boxes[:, :, None] - gts).abs().sum(-1)
    corners, gt_corners = bbox_cxcywh_to_xyxy(boxes), bbox_cxcywh_to_xyxy(gts)
    iou = bbox_overlaps(corners.flatten(0, 1) * size, gt_corners * size, mode='giou')
    iou = iou.reshape(distance.shape)
    return -(2 * focal + 5 * distance - 2 * iou).min(dim=-1).values


@pytest.mark.parametrize('grqo', [None, dict(mute_share=0.5)])
def test_rewards_and_advantages_equal_their_definition(grqo):
    model = banked(grqo)
    images, samples = make_batch(TWO_IMAGES)
    views = view_queries(model, images, samples, NAMES)
    for view, (boxes, labels) in zip(views, TWO_IMAGES, strict=True):
        truth = view.truth
        names = [view.class_names[prompt] for prompt in truth.gt_prompts]
        assert names == [NAMES[label] for label in labels]
        corners = bbox_cxcywh_to_xyxy(torch.tensor(truth.gt_boxes)) * 64
        torch.testing.assert_close(corners, torch.tensor(boxes).float())
        reward = expected_rewards(view)
        np.testing.assert_allclose(truth.rewards, reward, atol=1e-4)
        # 3 of 10 queries are muted by the published share
        kept = 7 if grqo is None else 5
        assert truth.num_kept == kept
        centred = reward - reward.mean(1, keepdim=True)
        advantage = centred / (reward.std(1, keepdim=True) + 1e-6)
        assert advantage.sum(1).abs().max() < 1e-4
        np.testing.assert_allclose(truth.advantages[:, :kept], advantage[:, :kept], atol=1e-3)
        assert not truth.advantages[:, kept:].any()
        for matches in truth.matches:  # one to one
            assert sorted(matches[matches >= 0]) == list(range(len(boxes)))


LATE = dict(fusion=False, prompts_from='memory', prompt_encoder=dict(type='JointPromptEncoder'))


@pytest.mark.parametrize('prompting', [dict(), LATE], ids=['fused', 'late'])
def test_last_layer_is_what_the_model_detects(prompting):
    model = banked(**prompting).eval()
    model.test_cfg.max_per_img = 10
    images, samples = make_batch(TWO_IMAGES)
    view = view_queries(model, images, samples, NAMES)[0]
    with torch.no_grad():
        found = model.predict(images, samples, rescale=False)[0].pred_instances
    assert len(view.boxes) == len(model.decoder.layers) + 1
    best = np.sort(view.scores[-1].ravel())[::-1][:10]
    np.testing.assert_allclose(found.scores, best, rtol=1e-5)
    np.testing.assert_array_equal(view.preferred, view.scores.argmax(-1))
    assert (np.diff(view.objectness) <= 1e-6).all()  # selection order


def test_a_view_depends_on_its_image_alone_and_leaves_the_mode():
    model = banked(dict()).train()
    images, samples = make_batch(TWO_IMAGES)
    both = view_queries(model, images, samples, NAMES)
    assert model.training
    alone = view_queries(model, images[1:], samples[1:], NAMES)[0]
    np.testing.assert_allclose(alone.boxes, both[1].boxes, atol=1e-5)
    np.testing.assert_allclose(alone.truth.rewards, both[1].truth.rewards, atol=1e-4)


@pytest.mark.parametrize('prompting', [dict(), LATE], ids=['fused', 'late'])
def test_own_prompts_without_padding_and_boxes_without_prompt(prompting):
    model = build_tiny(**prompting)
    images, samples = make_batch(TWO_IMAGES)
    exemplars = [([[4, 4, 24, 30], [8, 8, 20, 20]], [2, 9]), ([[8, 8, 40, 40]], [7])]
    first, second = view_queries(model, images, with_prompts(samples, exemplars), NAMES)
    assert first.class_names == ('class 2', 'class 9') and second.class_names == ('class 7',)
    assert second.scores.shape == (3, 10, 1)
    assert first.truth.gt_prompts.tolist() == [0, 0]  # the box of class 5 was not asked for
    np.testing.assert_allclose(first.truth.rewards, expected_rewards(first), atol=1e-4)


def test_images_without_boxes_or_without_truth():
    model = banked()
    images, samples = make_batch([([], []), ([], [])])
    del samples[1].gt_instances
    empty, unknown = view_queries(model, images, samples, NAMES)
    assert not empty.truth.rewards.any() and not empty.truth.advantages.any()
    assert (empty.truth.matches == -1).all() and unknown.truth is None


def test_negatives_of_a_bank_are_no_classes():
    model, (images, samples) = banked(), make_batch(TWO_IMAGES)
    plain = view_queries(model, images, samples, NAMES)
    negatives = {NAMES[7]: []}
    model.set_prompt_bank(model.prompt_bank.with_negatives(negatives))
    for view, before in zip(view_queries(model, images, samples, NAMES), plain, strict=True):
        assert view.class_names == tuple(NAMES[label] for label in (1, 2, 5))
        np.testing.assert_allclose(view.scores, before.scores[..., :3], rtol=1e-5)


def test_what_cannot_be_viewed():
    images, samples = make_batch(TWO_IMAGES)
    with pytest.raises(RuntimeError, match='No visual prompts'):
        view_queries(build_tiny(), images, samples, NAMES)
    with pytest.raises(ValueError, match='train_cfg.assigner'):
        view_queries(banked(train_cfg=None), images, samples, NAMES)
    nothing = with_prompts(samples, [([[4, 4, 24, 30]], [2]), ([], [])])
    with pytest.raises(ValueError, match='Image 1 has no prompt'):
        view_queries(build_tiny(), images, nothing, NAMES)


@pytest.fixture
def shapes(tiny_shapes):
    """The tiny test set, its images enlarged by the pipeline."""
    cfg = Config.fromfile(CONFIGS / 'vis_gdino_r18_shapes.py').test_dataloader.dataset
    cfg.data_root = f'{tiny_shapes}/'
    return DATASETS.build(cfg)


def test_images_of_a_test_set_with_their_boxes(shapes):
    model = build_tiny()
    names = shapes.metainfo['classes']
    model.set_prompt_bank(PromptBank(tuple(names), torch.randn(len(names), 256)))
    views = view_dataset(model, shapes, num_images=2)
    infos = [shapes.get_data_info(index) for index in (0, 3)]  # first and last
    assert [view.image_id for view in views] == [info['img_id'] for info in infos]
    for view, info in zip(views, infos, strict=True):
        corners = bbox_cxcywh_to_xyxy(torch.tensor(view.truth.gt_boxes)) * 64  # of the file
        wanted = torch.tensor([item['bbox'] for item in info['instances']], dtype=torch.float32)
        torch.testing.assert_close(corners, wanted, atol=1e-3, rtol=0)
        assert view.truth.gt_prompts.tolist() == [i['bbox_label'] for i in info['instances']]
    (chosen,) = view_dataset(model, shapes, image_ids=[str(infos[1]['img_id'])])
    np.testing.assert_array_equal(chosen.boxes, views[1].boxes)
    with pytest.raises(ValueError, match='no image 12345'):
        view_dataset(model, shapes, image_ids=[12345])


def test_a_group_of_datasets_is_refused():
    group = type('DatasetGroup', (), dict(datasets=[]))()
    with pytest.raises(ValueError, match='one dataset at a time'):
        view_dataset(build_tiny(), group)
