"""Fused attention against what it replaces."""

import pytest
import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmdet.models.utils.vlfuse_helper import BiMultiHeadAttention

from mmdet_dino_r1.models.layers.attention import (
    FusedBiAttention,
    FusedMultiheadAttention,
    attend_to_self_only,
)

SIZES = dict(embed_dims=32, num_heads=4, batch_first=True)


def test_fused_attention_equals_mmcv():
    mmcv, fused = MultiheadAttention(**SIZES), FusedMultiheadAttention(**SIZES)
    fused.load_state_dict(mmcv.state_dict())
    query, key, pos = torch.randn(2, 5, 32), torch.randn(2, 7, 32), torch.randn(2, 5, 32)
    padding = torch.arange(7).expand(2, 7) > torch.tensor([[4], [6]])
    torch.testing.assert_close(
        fused(query, key, key, query_pos=pos, key_padding_mask=padding),
        mmcv(query, key, key, query_pos=pos, key_padding_mask=padding),
    )


def test_query_position_never_leaks_into_keys():
    """mmcv adds it when there happen to be as many keys as queries."""
    fused = FusedMultiheadAttention(**SIZES)
    query, pos = torch.randn(1, 5, 32), torch.randn(1, 5, 32)
    key = torch.randn(1, 5, 32)
    twice = torch.cat([key, key], dim=1)  # the same keys, twice as many: the same result
    torch.testing.assert_close(
        fused(query, key, key, query_pos=pos), fused(query, twice, twice, query_pos=pos)
    )


def test_self_only_equals_attention_under_an_identity_mask():
    mmcv = MultiheadAttention(**SIZES)
    tokens, pos = torch.randn(3, 6, 32), torch.randn(3, 6, 32)
    others = ~torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(
        attend_to_self_only(mmcv, tokens),
        mmcv(tokens, tokens, tokens, query_pos=pos, key_pos=pos, attn_mask=others),
    )


def bi_attention(cls):
    torch.manual_seed(0)
    return cls(v_dim=16, l_dim=16, embed_dim=32, num_heads=4, dropout=0.1).eval()


def test_bi_attention_equals_mmdet():
    vision, prompts = torch.randn(2, 9, 16), torch.randn(2, 5, 16)
    image_padding = torch.arange(9).expand(2, 9) > torch.tensor([[8], [5]])
    ours = bi_attention(FusedBiAttention)(vision, prompts, image_padding, None)
    theirs = bi_attention(BiMultiHeadAttention)(vision, prompts, image_padding, None)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])


@pytest.mark.parametrize('path', ['_through_prompts', '_through_tokens'])
def test_both_ways_of_bi_attention_equal_mmdet_with_gradients(path):
    """The prompts' side or the tokens', whichever is cheaper: the same but for rounding."""
    vision = torch.randn(2, 9, 16, requires_grad=True)
    prompts = torch.randn(2, 5, 16, requires_grad=True)
    image_padding = torch.arange(9).expand(2, 9) > torch.tensor([[8], [5]])
    theirs, ours = bi_attention(BiMultiHeadAttention), bi_attention(FusedBiAttention)
    for parameter, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.nn.init.normal_(parameter, std=0.3)  # biases, too
        other.data.copy_(parameter)
    results = []
    for module, out in (
        (theirs, theirs(vision, prompts, image_padding, None)),
        (ours, getattr(ours, path)(vision, prompts, image_padding, None)),
    ):
        total = out[0].square().sum() + out[1].pow(3).sum()
        gradients = torch.autograd.grad(total, [vision, prompts, *module.parameters()])
        results.append([*out, *gradients])
    for mine, expected in zip(*reversed(results), strict=True):
        atol = 1e-5 * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize('num_prompts', [8, 9])
def test_many_prompts_take_the_other_way(monkeypatch, num_prompts):
    """32 wide, 4 heads: up to 8 prompts the attention matrix is the smaller."""
    attention = bi_attention(FusedBiAttention)
    vision, prompts = torch.randn(1, 3, 16), torch.randn(1, num_prompts, 16)
    monkeypatch.setattr(attention, '_through_prompts', lambda *_: 'prompts')
    monkeypatch.setattr(attention, '_through_tokens', lambda *_: 'tokens')
    assert attention(vision, prompts) == ('prompts' if num_prompts == 8 else 'tokens')


def test_dropout_drops_the_bias_of_dropped_tokens():
    """Weights that sum to less than 1 after dropout weigh the values' bias less, as in mmdet."""
    attention = bi_attention(FusedBiAttention).train()
    attention.dropout = 0.5
    for parameter in attention.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(attention.values_v_proj.bias)
    torch.nn.init.eye_(attention.out_l_proj.weight)
    _, update = attention._through_prompts(torch.randn(9, 4, 16), torch.randn(9, 1, 16), None, None)
    # equal logits: each of the 4 tokens weighs 1/4, doubled if kept, so the sum is k/2
    assert set(update.unique().tolist()) <= {0.0, 0.5, 1.0, 1.5, 2.0}
    assert len(update.unique()) > 1, 'heads and images drop different tokens'


def test_padding_prompts_do_not_reach_the_image():
    attention = bi_attention(FusedBiAttention)
    vision, prompts = torch.randn(2, 9, 16), torch.randn(2, 3, 16)
    padded = torch.cat([prompts, 100 * torch.randn(2, 4, 16)], dim=1)
    hidden = (torch.arange(7) >= 3).expand(2, 7)
    alone = attention(vision, prompts)
    beside_padding = attention(vision, padded, None, hidden)
    torch.testing.assert_close(beside_padding[0], alone[0])
    torch.testing.assert_close(beside_padding[1][:, :3], alone[1])


def test_dropout_only_in_training():
    attention = bi_attention(FusedBiAttention)
    vision, prompts = torch.randn(1, 9, 16), torch.randn(1, 5, 16)
    assert torch.equal(attention(vision, prompts)[0], attention(vision, prompts)[0])
    attention.train()
    assert not torch.equal(attention(vision, prompts)[0], attention(vision, prompts)[0])
