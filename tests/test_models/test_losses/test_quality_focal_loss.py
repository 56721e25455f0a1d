"""Quality Focal Loss: by hand, against mmdet's, and what the head teaches with it."""

import math

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, head_inputs, make_batch
from mmdet.models.losses import QualityFocalLoss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from scipy.optimize import linear_sum_assignment

from mmdet_dino_r1.models.dense_heads.training_targets import TrainingTargets
from mmdet_dino_r1.models.losses import PromptQualityFocalLoss

QUALITY = dict(loss_cls=dict(_delete_=True, type='PromptQualityFocalLoss'))


def test_by_hand():
    """Score 1/2: target 3/4 weighs 1/2, the background sqrt(1/2); each loses log 2."""
    logits = torch.zeros(2, 1, requires_grad=True)
    loss = PromptQualityFocalLoss(loss_weight=3)(
        logits, torch.tensor([[0.75], [0.0]]), reduction_override='none'
    )
    weights = [3 * 0.5, 3 * math.sqrt(0.5)]
    assert loss.flatten().tolist() == pytest.approx([w * math.log(2) for w in weights])
    loss.sum().backward()  # of the cross entropy alone: p - w
    assert logits.grad.flatten().tolist() == pytest.approx([weights[0] * -0.25, weights[1] * 0.5])


@pytest.mark.parametrize('beta', [0.5, 2.0])
def test_values_are_mmdets(beta):
    logits, target = torch.randn(6, 5), torch.zeros(6, 5)
    target[[0, 1, 3], [2, 4, 0]] = torch.tensor([0.9, 0.3, 1.0])
    ours, theirs = (
        cls(beta=beta, loss_weight=2.0)(logits, target, reduction_override='none')
        for cls in (PromptQualityFocalLoss, QualityFocalLoss)
    )
    torch.testing.assert_close(ours.sum(dim=1), theirs)  # mmdet sums over the classes
    mean, total = (
        PromptQualityFocalLoss(beta=beta, loss_weight=2.0)(logits, target, **how)
        for how in (dict(), dict(reduction_override='sum'))
    )
    torch.testing.assert_close(torch.stack([mean, total]), theirs.sum() / torch.tensor([30.0, 1]))


@pytest.mark.parametrize(('logit', 'target'), [(0.0, 0.5), (-200.0, 0.0), (200.0, 1.0)])
def test_gradient_is_finite_where_a_score_meets_its_target(logit, target):
    given = torch.tensor([[logit]], requires_grad=True)
    PromptQualityFocalLoss()(given, torch.tensor([[target]])).backward()
    assert given.grad.item() == 0


def class_losses_by_loops(model, inputs):
    """Classification losses of the matching queries, object by object: {name: value}."""
    head = model.bbox_head
    logits, boxes = head(
        *(inputs[key] for key in ('hidden_states', 'references', 'memory_text', 'text_token_mask'))
    )
    first, selection = inputs['dn_meta']['num_denoising_queries'], inputs['selection']
    stages = [
        *zip(logits[:, :, first:], boxes[:, :, first:], strict=True),
        (selection.logits, selection.boxes_unact.sigmoid()),
    ]
    ground_truth = inputs['ground_truth']
    targets = TrainingTargets.build(ground_truth, inputs['choice'].classes)
    names = [*(f'd{i}.loss_cls' for i in range(len(logits) - 1)), 'loss_cls', 'enc_loss_cls']
    found = {}
    for name, (scores, predicted) in zip(names, stages, strict=True):
        costs = head.assigner.cost(
            scores[None], predicted[None], targets.instances, ground_truth.img_shapes
        )
        value = 0.0
        for image, (cost, gts) in enumerate(zip(costs, targets.instances, strict=True)):
            height, width = ground_truth.img_shapes[image]
            pixels = bbox_cxcywh_to_xyxy(predicted[image]) * torch.tensor([width, height] * 2)
            wanted = torch.zeros_like(scores[image])
            for query, gt in zip(*linear_sum_assignment(cost[0].detach()), strict=True):
                overlap = bbox_overlaps(pixels[query][None], gts.bboxes[gt][None])
                wanted[query, gts.positive_maps[gt].argmax()] = overlap[0, 0].detach()
            p = scores[image].sigmoid()
            entropy = -wanted * p.log() - (1 - wanted) * (1 - p).log()
            value = value + ((wanted - p).abs().detach().sqrt() * entropy).sum()
        found[name] = value / sum(ground_truth.counts)
    return found


@pytest.mark.parametrize('ground_truth', [TWO_IMAGES, [TWO_IMAGES[0], ([], [])]])
def test_the_head_teaches_the_overlap(ground_truth):
    model = build_tiny(bbox_head=QUALITY).train()
    inputs = head_inputs(model, *make_batch(ground_truth))
    ours, theirs = model.bbox_head.loss(**inputs), class_losses_by_loops(model, inputs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, msg=name, rtol=1e-4, atol=1e-5)
    hidden = inputs['hidden_states']
    slopes = [
        torch.autograd.grad(sum(losses[name] for name in theirs), hidden, retain_graph=True)[0]
        for losses in (ours, theirs)
    ]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-5)
    # box losses are those of any other classification loss, and mmdet's class is taken as well
    plain = build_tiny().train()
    plain.load_state_dict(model.state_dict())
    for name, value in plain.bbox_head.loss(**inputs).items():
        assert torch.equal(value, ours[name]) == ('_cls' not in name), name
    model.bbox_head.loss_cls = QualityFocalLoss(beta=0.5)
    for name, value in model.bbox_head.loss(**inputs).items():
        torch.testing.assert_close(value, ours[name], msg=name)


def test_every_parameter_learns_and_a_batch_without_boxes_is_no_trouble():
    model = build_tiny(dict(kl_weight=0), bbox_head=QUALITY).train()
    for batch in (TWO_IMAGES, [([], []), ([], [])]):
        losses = model.loss(*make_batch(batch))
        total = sum(value for name, value in losses.items() if 'loss' in name)
        assert total.isfinite()
        total.backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
