"""Batched matching against mmdet's own, image by image and layer by layer."""

import torch
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData

from mmdet_dino_r1.models import task_modules
from mmdet_dino_r1.models.losses import BestMatchReward
from mmdet_dino_r1.models.task_modules import BatchedHungarianAssigner

COSTS = [
    dict(type='PromptFocalLossCost', weight=2.0),
    dict(type='PromptBBoxL1Cost', weight=5.0, box_format='xywh'),
    dict(type='PromptGIoUCost', weight=2.0),
]
MMDET_COSTS = [
    dict(type='BinaryFocalLossCost', weight=2.0),
    dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
    dict(type='IoUCost', iou_mode='giou', weight=2.0),
]
SHAPES = [(64, 48), (50, 64), (64, 64)]


def ground_truth(count: int, num_prompts: int = 4) -> InstanceData:
    corners = torch.rand(count, 2) * 20
    labels = torch.randint(num_prompts, (count,))
    one_hot = torch.nn.functional.one_hot(labels, num_prompts).float()
    return InstanceData(
        bboxes=torch.cat([corners, corners + 5 + torch.rand(count, 2) * 20], dim=1),
        labels=labels,
        positive_maps=one_hot,
        text_token_mask=torch.ones_like(one_hot, dtype=torch.bool),
    )


def predictions(num_layers: int = 3, num_queries: int = 8):
    logits = torch.randn(num_layers, len(SHAPES), num_queries, 4)
    boxes = torch.rand(num_layers, len(SHAPES), num_queries, 4) * 0.4 + 0.1
    return logits, boxes


def test_same_matches_as_mmdet():
    """One image has more boxes than there are queries, one has none."""
    logits, boxes = predictions()
    gts = [ground_truth(5), ground_truth(0), ground_truth(11)]
    batched = BatchedHungarianAssigner(COSTS)
    matches = batched.match(batched.cost(logits, boxes, gts, SHAPES))
    mmdet = HungarianAssigner(MMDET_COSTS)
    for layer in range(3):
        for image, (height, width) in enumerate(SHAPES):
            scale = torch.tensor([width, height, width, height])
            theirs = mmdet.assign(
                InstanceData(
                    scores=logits[layer, image],
                    bboxes=bbox_cxcywh_to_xyxy(boxes[layer, image]) * scale,
                ),
                gts[image],
                dict(img_shape=(height, width)),
            ).gt_inds
            mine = (matches.layer == layer) & (matches.image == image)
            ours = torch.zeros(8, dtype=torch.long)
            ours[matches.query[mine]] = matches.gt[mine] + 1
            assert torch.equal(ours, theirs)


def test_costs_and_gradients_are_mmdets_to_the_digit():
    """Boxes without area and boxes apart among them; our forms only copy less to the device."""
    gts = ground_truth(6)
    gts.bboxes[0, 2:] = gts.bboxes[0, :2]
    boxes = torch.rand(9, 2) * 30
    boxes = torch.cat([boxes, boxes + torch.rand(9, 2) * 30], dim=1)
    boxes[0], boxes[1, 2:] = gts.bboxes[1], boxes[1, :2]
    scores = torch.randn(9, 4)
    meta = dict(img_shape=(64, 48), scale=torch.tensor([48.0, 64, 48, 64]))
    for ours, theirs in zip(COSTS, MMDET_COSTS, strict=True):
        results = []
        for cfg in (ours, theirs):
            inputs = dict(scores=scores, bboxes=boxes)
            inputs = {name: value.clone().requires_grad_() for name, value in inputs.items()}
            cost = TASK_UTILS.build(cfg)(InstanceData(**inputs), gts, img_meta=meta)
            cost.square().sum().backward()
            results.append([cost, *(value.grad for value in inputs.values())])
        for mine, mmdets in zip(*results, strict=True):
            assert (mine is None and mmdets is None) or torch.equal(mine, mmdets)


def test_pairs_come_layer_by_layer_equally_many():
    logits, boxes = predictions()
    assigner = BatchedHungarianAssigner(COSTS)
    gts = [ground_truth(5), ground_truth(0), ground_truth(11)]
    matches = assigner.match(assigner.cost(logits, boxes, gts, SHAPES))
    assert matches.layer.tolist() == [0] * 13 + [1] * 13 + [2] * 13  # min(5, 8) + 0 + min(11, 8)


def test_cost_by_hand():
    """A query exactly on its ground truth, with an undecided logit."""
    gt = InstanceData(
        bboxes=torch.tensor([[16.0, 16, 48, 48]]),
        labels=torch.tensor([0]),
        positive_maps=torch.ones(1, 1),
    )
    cost = BatchedHungarianAssigner(COSTS).cost(
        torch.zeros(1, 1, 1, 1), torch.tensor([[[[0.5, 0.5, 0.5, 0.5]]]]), [gt], [(64, 64)]
    )[0]
    # focal: 2 * 0.25 * 0.5^2 * log 2; L1: 0; GIoU cost: -1 * 2
    expected = 2 * 0.25 * 0.25 * torch.tensor(2.0).log() - 2
    torch.testing.assert_close(cost, expected.view(1, 1, 1))


def test_reward_is_differentiable_through_the_cost():
    logits, boxes = predictions(num_layers=1)
    logits.requires_grad_()
    boxes.requires_grad_()
    gts = [ground_truth(2), ground_truth(3), ground_truth(1)]
    costs = BatchedHungarianAssigner(COSTS).cost(logits, boxes, gts, SHAPES)
    sum(BestMatchReward()(cost).sum() for cost in costs).backward()
    assert logits.grad.abs().sum() > 0 and boxes.grad.abs().sum() > 0


def test_best_match_reward():
    cost = torch.tensor([[3.0, -1.0], [0.5, 2.0]])
    assert BestMatchReward()(cost).tolist() == [1.0, -0.5]
    assert BestMatchReward()(torch.empty(4, 0)).tolist() == [0.0] * 4
    assert task_modules.BestMatchReward is BestMatchReward, 'where 0.5 had it'
