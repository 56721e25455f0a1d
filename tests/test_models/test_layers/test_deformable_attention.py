"""Deformable attention and the token grid against mmcv's and mmdet's own."""

import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttention
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers.transformer.deformable_detr_layers import DeformableDetrTransformerEncoder
from torch import nn

from mmdet_dino_r1.models.layers import (
    chunking,
    deformable_attention,
    proposals,
    token_grid,
)
from mmdet_dino_r1.models.layers.deformable_attention import (
    LevelwiseDeformableAttention,
    by_level,
    sample_levels,
)
from mmdet_dino_r1.models.layers.token_grid import reference_points

SHAPES = [(5, 7), (3, 4)]
NUM_KEYS = 47
SIZES = dict(embed_dims=32, num_heads=4, num_levels=2, num_points=3, dropout=0.0, batch_first=True)


def attention_inputs(coordinates: int) -> dict:
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    return dict(
        query=random(2, 9, 32).requires_grad_(),
        query_pos=random(2, 9, 32),
        value=random(2, NUM_KEYS, 32).requires_grad_(),
        key_padding_mask=torch.arange(NUM_KEYS).expand(2, -1) >= torch.tensor([[47], [40]]),
        reference_points=torch.rand((2, 9, 2, coordinates), generator=generator).requires_grad_(),
        level_start_index=torch.tensor([0, 35]),
    )


@pytest.mark.parametrize('coordinates', [2, 4])
def test_equals_mmcv_with_gradients(coordinates):
    torch.manual_seed(0)
    mmcv, ours = MultiScaleDeformableAttention(**SIZES), LevelwiseDeformableAttention(**SIZES)
    for parameter in mmcv.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(mmcv.state_dict())
    inputs = attention_inputs(coordinates)
    wanted = [inputs[name] for name in ('query', 'value', 'reference_points')]
    results = []
    for module, shapes in ((mmcv, torch.tensor(SHAPES)), (ours, SHAPES)):
        out = module(**inputs, spatial_shapes=shapes)
        weight = torch.linspace(-1, 1, out.numel()).view_as(out)
        results.append(
            [out, *torch.autograd.grad((out * weight).sum(), [*wanted, *module.parameters()])]
        )
    for theirs, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_sampling_by_hand():
    """One level of 1 x 2 cells, 0 and 8: halfway is 4; half of the last cell is outside."""
    value = torch.tensor([0.0, 8.0]).view(1, 2, 1, 1)
    positions = torch.tensor([[0.5, 0.5], [1.0, 0.5]]).view(1, 1, 1, 1, 2, 2)
    for weights, expected in (([1.0, 0.0], 4.0), ([0.0, 1.0], 4.0), ([0.25, 0.5], 3.0)):
        weights = torch.tensor(weights).view(1, 1, 1, 1, 2)
        out = sample_levels(by_level(value, [(1, 2)]), positions, weights)
        assert out.item() == expected


def test_in_chunks_without_gradient_the_same(monkeypatch):
    ours, inputs = LevelwiseDeformableAttention(**SIZES), attention_inputs(4)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    whole = ours(**inputs, spatial_shapes=SHAPES)
    sizes = []
    monkeypatch.setattr(chunking, 'CHUNK_SIZE', 4)
    sample = deformable_attention.sample_levels
    monkeypatch.setattr(
        deformable_attention,
        'sample_levels',
        lambda levels, positions, weights: (
            sizes.append(positions.shape[1]) or sample(levels, positions, weights)
        ),
    )
    ours(**inputs, spatial_shapes=SHAPES)
    assert sizes == [9], 'with gradients all at once'
    with torch.inference_mode():
        in_chunks = ours(**inputs, spatial_shapes=SHAPES)
    assert sizes == [9, 4, 4, 1]
    torch.testing.assert_close(in_chunks, whole.detach(), rtol=1e-6, atol=1e-6)


def test_positions_keep_their_precision_under_autocast():
    """0.4 of 100 cells is 39.5 cells from the first centre; in bfloat16 it would be 39.62."""
    value = torch.arange(100.0).view(1, 100, 1, 1).bfloat16()  # whole numbers up to 256 are exact
    positions = torch.tensor([0.4, 0.5]).view(1, 1, 1, 1, 1, 2)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = sample_levels(by_level(value, [(1, 100)]), positions, torch.ones(1, 1, 1, 1, 1))
    assert out.item() == pytest.approx(39.5, abs=1e-4)


VALID = [(35, 56), (24, 40)]  # (h, w) of the images within 40 x 56 pixels, 8 pixels a cell


def padding_and_ratios():
    """Masks of two images as ``pre_transformer`` makes them, and their valid ratios."""
    masks = []
    for height, width in SHAPES:
        mask = torch.ones(2, height, width, dtype=torch.bool)
        for image, (h, w) in enumerate(VALID):
            mask[image, : -(-h * height // 40), : -(-w * width // 56)] = False
        masks.append(mask)
    ratios = torch.stack([DeformableDETR.get_valid_ratio(mask) for mask in masks], dim=1)
    return torch.cat([mask.flatten(1) for mask in masks], dim=1), ratios


def test_reference_points_are_mmdets():
    _, ratios = padding_and_ratios()
    theirs = DeformableDetrTransformerEncoder.get_encoder_reference_points(
        torch.tensor(SHAPES), ratios, device='cpu'
    )
    mine = reference_points(token_grid(SHAPES, torch.device('cpu')), ratios)
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


class Transform(nn.Module):
    """What mmdet's method reads of a detector."""

    memory_trans_fc = nn.Identity()
    memory_trans_norm = nn.Identity()


@pytest.mark.parametrize('padded', [True, False])
def test_proposals_are_mmdets(padded):
    padding, ratios = padding_and_ratios()
    if not padded:
        padding, ratios = None, torch.ones_like(ratios)
    memory = torch.rand(2, NUM_KEYS, 3) + 1
    tokens, boxes = DeformableDETR.gen_encoder_output_proposals(
        Transform(), memory, padding, torch.tensor(SHAPES)
    )
    mine, invalid_mask = proposals(token_grid(SHAPES, torch.device('cpu')), ratios, padding)
    assert torch.equal(invalid_mask, (tokens == 0).all(dim=-1))
    torch.testing.assert_close(mine, boxes.expand_as(mine), rtol=1e-5, atol=1e-6)


def test_the_grid_is_remembered_and_usable_in_training_whoever_asked_first():
    device = torch.device('cpu')
    with torch.inference_mode():
        first = token_grid([(2, 9)], device)
    assert token_grid([(2, 9)], device) is first
    assert not any(part.is_inference() for part in first)
    assert first.cells[10].tolist() == [1.5, 1.5], 'row by row'
