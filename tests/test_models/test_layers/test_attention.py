"""Fused attention against what it replaces."""

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
