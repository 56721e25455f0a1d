"""The head's losses against mmdet's own head, and its predictions by hand."""

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, head_inputs, make_batch
from mmdet.models.dense_heads import GroundingDINOHead
from mmdet.models.losses import GIoULoss
from mmdet.models.task_modules.assigners import HungarianAssigner
from torch import nn

from mmdet_dino_r1.models.dense_heads.dino_r1_head import suppress
from mmdet_dino_r1.models.dense_heads.training_targets import TrainingTargets, denoising_pairs
from mmdet_dino_r1.models.layers import DenoisingQueries
from mmdet_dino_r1.structures import BatchBoxes, ExemplarChoice

WIDTH = 256  # mmdet pads logits to it


def mmdet_losses(model, inputs, samples):
    """The parent's ``loss`` on the same inputs: padded logits, per-layer loops."""
    head = model.bbox_head
    theirs = object.__new__(GroundingDINOHead)
    theirs.__dict__.update(head.__dict__)
    theirs.max_text_len = WIDTH
    theirs.assigner = HungarianAssigner(
        [
            dict(type='BinaryFocalLossCost', weight=2.0),
            dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='IoUCost', iou_mode='giou', weight=2.0),
        ]
    )

    theirs.loss_iou = GIoULoss(loss_weight=2.0)

    def pad(logits):
        missing = WIDTH - logits.shape[-1]
        return nn.functional.pad(logits, (0, missing), value=float('-inf'))

    logits, boxes = head(
        inputs['hidden_states'],
        inputs['references'],
        inputs['memory_text'],
        inputs['text_token_mask'],
    )
    choice = inputs['choice']
    for sample in samples:
        index = torch.searchsorted(choice.labels, sample.gt_instances.labels)
        sample.gt_instances.positive_maps = nn.functional.one_hot(index, WIDTH).float()
        mask = torch.arange(WIDTH) < len(choice)
        sample.gt_instances.text_token_mask = mask.expand(len(index), -1)
    theirs.text_masks = inputs['text_token_mask']
    selection = inputs['selection']
    return theirs.loss_by_feat(
        pad(logits),
        boxes,
        pad(selection.logits),
        selection.boxes_unact.sigmoid(),
        [sample.gt_instances for sample in samples],
        [sample.metainfo for sample in samples],
        inputs['dn_meta'],
    )


@pytest.mark.parametrize('ground_truth', [TWO_IMAGES, [TWO_IMAGES[0], ([], [])]])
def test_detection_losses_equal_mmdet(ground_truth):
    model = build_tiny().train()
    images, samples = make_batch(ground_truth)
    inputs = head_inputs(model, images, samples)
    ours = model.bbox_head.loss(**inputs)
    theirs = mmdet_losses(model, inputs, samples)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value.reshape(()), msg=name, rtol=1e-5, atol=1e-6)


def test_grqo_sees_matching_queries_of_decoder_layers_only():
    model = build_tiny(dict(kl_weight=0)).train()
    inputs = head_inputs(model, *make_batch(TWO_IMAGES))
    seen = {}
    grqo = model.bbox_head.loss_grqo
    forward = grqo.forward
    grqo.forward = lambda reward, **kw: seen.update(reward=reward, **kw) or forward(reward, **kw)
    model.bbox_head.loss(**inputs)
    assert inputs['dn_meta']['num_denoising_queries'] > 0
    assert seen['reward'].shape == (2, 2, 10), '2 layers, 2 images, 10 matching queries'
    assert seen['has_boxes'].tolist() == [True, True]


def test_reward_is_the_assigners_own_cost():
    """One query's reward, from mmdet's match costs on that query alone."""
    model = build_tiny(dict(kl_weight=0)).train()
    inputs = head_inputs(model, *make_batch(TWO_IMAGES))
    head, choice = model.bbox_head, inputs['choice']
    logits, boxes = head(
        inputs['hidden_states'],
        inputs['references'],
        inputs['memory_text'],
        inputs['text_token_mask'],
    )
    first = inputs['dn_meta']['num_denoising_queries']
    targets = TrainingTargets.build(inputs['ground_truth'], choice.classes)
    one = slice(first + 3, first + 4)
    cost = head.assigner.cost(
        logits[1:, :, one], boxes[1:, :, one], targets.instances, targets.ground_truth.img_shapes
    )
    seen = {}
    forward = head.loss_grqo.forward
    head.loss_grqo.forward = lambda reward, **kw: (
        seen.update(reward=reward) or forward(reward, **kw)
    )
    head.loss(**inputs)
    torch.testing.assert_close(seen['reward'][1, 0, 3], -cost[0].min())


def test_reward_gradient_reaches_decoder_and_policy_gradient_the_selection():
    for advantage, reached, not_reached in (
        ('reward', 'decoder.layers.1.ffn.layers.1.weight', None),
        ('policy', 'memory_trans_fc.weight', 'decoder.layers.1.ffn.layers.1.weight'),
    ):
        model = build_tiny(dict(advantage=advantage, kl_weight=0, reward_weight=1.0)).train()
        losses = model.loss(*make_batch(TWO_IMAGES))
        losses['loss_grqo_reward'].backward()
        assert model.get_parameter(reached).grad.abs().sum() > 0
        if not_reached:
            assert model.get_parameter(not_reached).grad is None


def test_denoising_pairs_by_hand():
    """Two groups for images of 2 and 1 boxes: positives of group g start at 4 g."""
    _, samples = make_batch([([[0, 0, 8, 8], [8, 8, 20, 20]], [1, 3]), ([[4, 4, 9, 9]], [3])])
    choice = ExemplarChoice(torch.zeros(2).long(), torch.zeros(2, 4), torch.tensor([1, 3]))
    ground_truth = BatchBoxes.read(samples)
    targets = TrainingTargets.build(ground_truth, choice.classes)
    assert targets.prompt_index.tolist() == [0, 1, 1]

    def layout(num_dn_queries):
        return DenoisingQueries(
            num_classes=4,
            embed_dims=8,
            num_matching_queries=5,
            group_cfg=dict(dynamic=True, num_dn_queries=num_dn_queries),
        )

    meta = layout(4)(ground_truth)[3]
    assert (meta['num_denoising_queries'], meta['num_denoising_groups']) == (8, 2)
    layer, image, query, gt = denoising_pairs(meta['positives'], num_layers=1)
    assert layer.tolist() == [0] * 6
    assert image.tolist() == [0, 0, 1, 0, 0, 1]
    assert query.tolist() == [0, 1, 0, 4, 5, 4]
    assert gt.tolist() == [0, 1, 2, 0, 1, 2]
    of_layers = denoising_pairs(meta['positives'], num_layers=2)
    assert of_layers[0].tolist() == [0] * 6 + [1] * 6
    assert torch.equal(of_layers[1:, 6:], of_layers[1:, :6])

    # of the first image only its second box: there is room for one box in each group
    generator = layout(2)
    generator._select = lambda count: torch.tensor([count - 1])
    meta = generator(ground_truth)[3]
    assert (meta['num_denoising_queries'], meta['num_denoising_groups']) == (4, 2)
    _, _, query, gt = denoising_pairs(meta['positives'], num_layers=1)
    assert query.tolist() == [0, 0, 2, 2]
    assert gt.tolist() == [1, 2, 1, 2]


def test_predictions_by_hand():
    head = build_tiny().bbox_head
    logits = torch.full((10, 2), -9.0)
    logits[4, 1], logits[7, 0] = 2.0, 1.0
    boxes = torch.full((10, 4), 0.5)
    boxes[4] = torch.tensor([0.25, 0.5, 0.25, 0.5])
    boxes[7] = torch.tensor([0.9, 0.9, 0.4, 0.4])  # reaches over the border
    pixels = torch.full((4,), 64.0)
    # the original has 128 pixels
    found = head._predict_by_feat_single(
        logits.sigmoid(), boxes, torch.tensor([40, 50, -1]), pixels, torch.full((4,), 0.5)
    )
    assert found.labels[:2].tolist() == [50, 40]
    torch.testing.assert_close(found.scores[:2], torch.tensor([2.0, 1.0]).sigmoid())
    torch.testing.assert_close(found.bboxes[0], torch.tensor([16.0, 32, 48, 96]))
    torch.testing.assert_close(found.bboxes[1], torch.tensor([89.6, 89.6, 128, 128]))
    assert len(found) <= 20


def test_suppression_is_class_wise_and_only_on_request():
    head = build_tiny().bbox_head
    logits = torch.full((10, 2), -9.0)
    logits[0, 0], logits[1, 0], logits[2, 1] = 3.0, 2.0, 1.0
    boxes = torch.full((10, 4), 0.5)
    boxes[1, 0] = 0.52  # IoU 0.92 with the first
    labels, pixels = torch.tensor([4, 5]), torch.full((4,), 64.0)
    found = head._predict_by_feat_single(logits.sigmoid(), boxes, labels, pixels, None)
    assert found.labels[:3].tolist() == [4, 4, 5]
    head.test_cfg = dict(max_per_img=3)
    found = head._predict_by_feat_single(logits.sigmoid(), boxes, labels, pixels, None)
    found, none = suppress([found, found[:0]], dict(type='nms', iou_threshold=0.7))
    assert len(none) == 0
    assert found.labels.tolist() == [4, 5], 'the second of class 4 gives way, the other class not'
    torch.testing.assert_close(found.scores, torch.tensor([3.0, 1.0]).sigmoid())


def test_another_assigner_is_refused_by_name():
    with pytest.raises(TypeError, match='BatchedHungarianAssigner.*got HungarianAssigner'):
        build_tiny(train_cfg=dict(assigner=dict(type='HungarianAssigner')))
