"""Groups of one object by hand, by gradients, and in the head against loops over objects."""

import math

import pytest
import torch
from conftest import CONFIGS, TWO_IMAGES, build_tiny, head_inputs, make_batch, without_dropout
from mmdet.registry import HOOKS, MODELS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.config import Config
from scipy.optimize import linear_sum_assignment

from mmdet_dino_r1.models.dense_heads.training_targets import TrainingTargets
from mmdet_dino_r1.models.losses import GRQOLoss, ObjectGroups, quality_loss, rank_in_group

OBJECTS = dict(group='object', reward_weight=0.0, kl_weight=0.0)


def test_rank_by_hand():
    quality = torch.tensor([0.2, 0.9, 0.5, 0.5, 1.0, 0.0])
    group = torch.tensor([4, 7, 4, 4, 7, 5])
    assert rank_in_group(quality, group).tolist() == [2, 1, 0, 1, 0, 0]
    assert rank_in_group(torch.zeros(0), torch.zeros(0, dtype=torch.long)).tolist() == []


def test_rank_keeps_apart_what_float32_would_not():
    """Neighbouring qualities in the millionth group."""
    quality = torch.tensor([0.5, 0.5 + 2**-24])
    assert rank_in_group(quality, torch.full((2,), 10**6)).tolist() == [1, 0]


def test_quality_loss_by_hand():
    """p = 1/5 everywhere; a target of 1/2 at one place."""
    logits = torch.full((2, 3), -math.log(4), dtype=torch.double, requires_grad=True)
    at = torch.tensor([1]), torch.tensor([2])
    loss = quality_loss(logits, at, torch.tensor([0.5], dtype=torch.double), gamma=2)
    background = -0.04 * math.log(0.8)
    matched = -0.5 * math.log(0.2) - 0.5 * math.log(0.8)
    expected = torch.tensor([[background] * 3, [background] * 2 + [matched]], dtype=torch.double)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    # p^3 where the square is a constant, p - w where there is a target
    slope = torch.full((2, 3), 0.008, dtype=torch.double)
    slope[1, 2] = 0.2 - 0.5
    torch.testing.assert_close(logits.grad, slope)
    # of plain cross entropy, of another one and of the default
    for gamma, weight in ((0, 1), (1, 0.2), (0.5, 0.2**0.5)):
        background = quality_loss(logits, at, torch.zeros(1).double(), gamma)[0, 0]
        assert background.item() == pytest.approx(-weight * math.log(0.8))


def test_what_is_taught_by_hand():
    """Quality sqrt(p) IoU: 1/2 * 1/2, 0.9 * 1/4 and, best, 1/2 * 1; another object's 1/4 * 1/2."""
    groups = ObjectGroups(temperature=2.0, powers=(0.5, 1.0))
    logits = torch.tensor([0.25, 0.81, 0.25, 1 / 16], dtype=torch.double).logit()
    whole = torch.tensor([10.0, 10, 30, 20], dtype=torch.double)
    half, quarter = whole.clone(), whole.clone()
    half[2], quarter[2] = 20, 15
    boxes = torch.stack([half, quarter, whole, half])
    logits.requires_grad_()
    target, share = groups.teach(logits, boxes, whole.expand(4, 4), torch.tensor([3, 3, 3, 9]))
    advantage = torch.tensor([0.5, 1.0, 0, 0], dtype=torch.double).neg().exp()
    torch.testing.assert_close(share.double(), advantage)
    quality = torch.tensor([1 / 4, 0.225, 1 / 2, 1 / 8], dtype=torch.double)
    torch.testing.assert_close(target.double(), quality * advantage)
    assert not target.requires_grad and not share.requires_grad


def test_sizes_by_stage():
    assert ObjectGroups((5, 1, 2)).sizes(num_layers=4) == [5, 5, 5, 1, 2]
    assert ObjectGroups((5, 1, 2)).sizes(num_layers=1) == [1, 2]


@pytest.mark.parametrize(
    'bad, named',
    [
        (dict(queries=(3, 1)), 'queries'),
        (dict(queries=(3, 0, 3)), 'queries'),
        (dict(queries=(1.5, 1, 3)), 'queries'),
        (dict(temperature=0), 'temperature'),
        (dict(gamma=-1), 'gamma'),
        (dict(powers=(0.5,)), 'powers'),
        (dict(powers=(-1, 2)), 'powers'),
    ],
)
def test_bad_settings_are_named(bad, named):
    with pytest.raises(ValueError, match=rf'GRQOLoss\.objects\.{named}'):
        GRQOLoss(group='object', objects=bad)


def test_the_preset_is_these_groups_alone():
    cfg = Config.fromfile(CONFIGS / '_base_' / 'grqo_objects.py')
    grqo = MODELS.build(cfg.grqo)
    assert grqo.objects == ObjectGroups() and not grqo.needs_reference
    reward, no_boxes = torch.zeros(2, 1, 4), torch.tensor([False])
    losses = grqo(reward, no_boxes, torch.zeros(1, 4), None)
    assert [name for name in losses if 'loss' in name] == []
    HOOKS.build(cfg.reference_model)


def test_bad_groups_are_named():
    with pytest.raises(ValueError, match="'image' or 'object', got 'query'"):
        GRQOLoss(group='query')
    with pytest.raises(ValueError, match=r"GRQOLoss\.group='object'"):
        GRQOLoss(objects=dict(queries=(3, 1, 3)))


# ------------------------------------------------------------------------------ in the head
def losses_by_loops(model, inputs, sizes):
    """The losses of the matching queries, object by object: {name: value}."""
    head = model.bbox_head
    logits, boxes = head(
        inputs['hidden_states'],
        inputs['references'],
        inputs['memory_text'],
        inputs['text_token_mask'],
    )
    first, selection = inputs['dn_meta']['num_denoising_queries'], inputs['selection']
    stages = [
        *zip(logits[:, :, first:], boxes[:, :, first:], strict=True),
        (selection.logits, selection.boxes_unact.sigmoid()),
    ]
    targets = TrainingTargets.build(inputs['ground_truth'], inputs['choice'].classes)
    shapes = inputs['ground_truth'].img_shapes
    found = {}
    num_gts = sum(inputs['ground_truth'].counts)
    names = [*(f'd{i}.loss' for i in range(len(logits) - 1)), 'loss', 'enc_loss']
    for name, size, (scores, predicted) in zip(names, sizes, stages, strict=True):
        cls = bbox = iou = 0.0
        costs = head.assigner.cost(scores[None], predicted[None], targets.instances, shapes)
        for image, (cost, gts) in enumerate(zip(costs, targets.instances, strict=True)):
            p = scores[image].sigmoid()
            background = torch.ones_like(p, dtype=torch.bool)
            of_each = torch.cat([cost[0].detach()] * size, dim=1)
            rows, columns = linear_sum_assignment(of_each)
            height, width = shapes[image]
            scale = torch.tensor([width, height, width, height])
            pixels = bbox_cxcywh_to_xyxy(predicted[image]) * scale
            for index, wanted in enumerate(gts.bboxes):
                column = gts.positive_maps[index].argmax()
                queries = [q for q, c in zip(rows, columns, strict=True) if c % len(gts) == index]
                overlap = bbox_overlaps(pixels[queries], wanted[None])[:, 0]
                quality = p[queries, column] ** 0.25 * overlap**0.75
                for rank, place in enumerate(quality.argsort(descending=True).tolist()):
                    query, advantage = queries[place], math.exp(-rank / 1.5)
                    w = (quality[place] * advantage).detach()
                    score = p[query, column]
                    cls = cls - w * score.log() - (1 - w) * (1 - score).log()
                    background[query, column] = False
                    corners = ((pixels[query] - wanted) / scale).view(2, 2)
                    l1 = corners.mean(dim=0).abs().sum() + corners.diff(dim=0).abs().sum()
                    bbox = bbox + 5 * advantage * l1
                    giou = bbox_overlaps(pixels[query][None], wanted[None], mode='giou')
                    iou = iou + 2 * advantage * (1 - giou[0, 0])
            cls = cls - (p.detach() ** 0.5 * (1 - p).log())[background].sum()
        for kind, value in dict(cls=cls, bbox=bbox, iou=iou).items():
            found[f'{name}_{kind}'] = value / num_gts
    return found


@pytest.mark.parametrize('ground_truth', [TWO_IMAGES, [TWO_IMAGES[0], ([], [])]])
def test_losses_equal_loops_over_objects(ground_truth):
    model = build_tiny(dict(OBJECTS, objects=dict(queries=(3, 1, 2), gamma=0.5))).train()
    inputs = head_inputs(model, *make_batch(ground_truth))
    ours = model.bbox_head.loss(**inputs)
    theirs = losses_by_loops(model, inputs, sizes=[3, 1, 2])
    assert {name for name in ours if 'dn_' not in name and 'grqo' not in name} == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value.reshape(()), msg=name, rtol=1e-4, atol=1e-5)
    # and so are their gradients with respect to what the decoder gives
    hidden = inputs['hidden_states']
    slopes = [
        torch.autograd.grad(sum(losses[name] for name in theirs), hidden, retain_graph=True)[0]
        for losses in (ours, theirs)
    ]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-5)


def test_denoising_and_what_comes_before_grqo_are_supervised():
    plain, grouped = build_tiny().train(), build_tiny(dict(OBJECTS)).train()
    grouped.load_state_dict(plain.state_dict())
    inputs = head_inputs(plain, *make_batch(TWO_IMAGES))
    supervised, groups = (model.bbox_head.loss(**inputs) for model in (plain, grouped))
    # one query of each object, the last layer's, gets its whole box losses
    whole = ('loss_bbox', 'loss_iou')
    for name, value in supervised.items():
        same = torch.equal(value, groups[name])
        assert same == ('dn_' in name or name in whole), name
    grouped.bbox_head.loss_grqo.active = False
    later = grouped.bbox_head.loss(**inputs)
    assert later.keys() == supervised.keys()
    assert all(torch.equal(value, later[name]) for name, value in supervised.items())


def test_order_of_images_and_of_queries_is_of_no_effect():
    model = without_dropout(build_tiny(dict(OBJECTS))).train()
    inputs = head_inputs(model, *make_batch(TWO_IMAGES))
    expected = model.bbox_head.loss(**inputs)
    first = inputs['dn_meta']['num_denoising_queries']
    queries = inputs['hidden_states'].shape[2] - first
    order = torch.cat([torch.arange(first), first + torch.randperm(queries)])
    inputs['hidden_states'] = inputs['hidden_states'][:, :, order]
    inputs['references'] = [boxes[:, order] for boxes in inputs['references']]
    permuted = model.bbox_head.loss(**inputs)
    for name, value in expected.items():
        torch.testing.assert_close(permuted[name], value, msg=name, rtol=1e-4, atol=1e-6)


def test_every_parameter_learns_and_a_batch_without_boxes_is_no_trouble():
    model = build_tiny(dict(OBJECTS)).train()
    for batch in (TWO_IMAGES, [([], []), ([], [])]):
        losses = model.loss(*make_batch(batch))
        total = sum(value for name, value in losses.items() if 'loss' in name)
        assert total.isfinite()
        total.backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
