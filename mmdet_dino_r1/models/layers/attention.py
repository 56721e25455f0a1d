"""Attention as this model needs it: fused, and over a single token.

Shapes: bs, num_points (sum of H*W over levels), num_prompts, num_queries, dim.
Parameter names are those of the parents in mmcv and mmdet, so their checkpoints load.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmdet.models.utils.vlfuse_helper import BiMultiHeadAttention
from torch import Tensor

from ...utils.compat import torch_version
from .precision import in_float32


class FusedMultiheadAttention(MultiheadAttention):
    """mmcv's ``MultiheadAttention`` through PyTorch's fused kernel.

    Differs from mmcv (``mmcv/cnn/bricks/transformer.py``) in two ways. mmcv asks for the
    attention weights, which nobody reads and which rules the fused kernel out. And without
    ``key_pos`` mmcv adds ``query_pos`` to the keys whenever both happen to have the same
    shape, so that Grounding DINO's results change when there are as many text tokens as
    queries; here no ``key_pos`` means none.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Attend from (bs, num_queries, dim) to (bs, num_keys, dim), with the residual.

        Arguments are as mmcv's, batch first; ``kwargs`` have no effect. Masks are True where a
        query may not look: ``attn_mask`` (num_queries, num_keys), ``key_padding_mask``
        (bs, num_keys).
        """
        identity = query
        query = query if query_pos is None else query + query_pos
        key = key if key_pos is None else key + key_pos
        if torch_version() < (2, 2) and torch.is_autocast_cpu_enabled():
            # masks get the query's type, and the fused kernel was not known to the CPU's autocast
            query = query.to(torch.get_autocast_cpu_dtype())
        # nn.MultiheadAttention was built by mmcv with the sequence first
        out = self.attn(
            query.transpose(0, 1),
            key.transpose(0, 1),
            value.transpose(0, 1),
            attn_mask=attn_mask,
            key_padding_mask=key_padding_mask,
            need_weights=False,
        )[0].transpose(0, 1)
        return identity + self.dropout_layer(self.proj_drop(out))


def attend_to_self_only(attention: MultiheadAttention, tokens: Tensor) -> Tensor:
    """Self-attention of (..., dim) tokens under an identity mask, with the residual.

    The softmax over a single key is 1, so each token gets its own projected value: queries,
    keys and positions drop out, and the cost is linear in the number of tokens. Attention weights
    get no dropout. The result cannot depend on how a mask is tiled over heads, which mmdet gets
    wrong for images with different prompts (``masks.repeat(num_heads, 1, 1)`` in
    ``GroundingDinoTransformerEncoder.forward`` puts heads before images).
    """
    mha = attention.attn
    value = F.linear(
        tokens, mha.in_proj_weight[2 * mha.embed_dim :], mha.in_proj_bias[2 * mha.embed_dim :]
    )
    return tokens + attention.dropout_layer(attention.proj_drop(mha.out_proj(value)))


class FusedBiAttention(BiMultiHeadAttention):
    """Image tokens and prompts attend to each other: mmdet's bi-attention, reordered (ours).

    There are far fewer prompts than image tokens. With v an image token and k a projected
    prompt, the logit (W v + b) · k is v · (Wᵀ k) + b · k; and a weighted sum of projected tokens
    is the projection of the weighted sum. So the three projections between the image's width and
    the attention's are applied to the prompts' side. Equal but for rounding. For more than
    ``embed_dim / num_heads`` prompts the attention matrix would outgrow what is saved: there two
    fused calls do it as mmdet does.

    Differs from mmdet (``mmdet/models/utils/vlfuse_helper.py``): there a boolean padding mask
    of the text has no effect (``masked_fill(mask == 0, -9e15)`` turns it into all True, a
    constant under the softmax), so padding prompts leak into the image. The parent clamps
    logits to ±50000, for float16 and for a softmax that does not subtract its maximum; PyTorch's
    does, and here logits are float32 whatever autocast says (within the fused kernels, too).
    """

    def forward(
        self,
        vision: Tensor,
        lang: Tensor,
        attention_mask_v: Tensor | None = None,
        attention_mask_l: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Updates for ``vision`` (bs, num_points, v_dim) and ``lang`` (bs, num_prompts, l_dim).

        ``attention_mask_v`` (bs, num_points) and ``attention_mask_l`` (bs, num_prompts) are True
        at padding, or None.
        """
        few = lang.shape[1] * self.num_heads <= self.embed_dim
        fuse = self._through_prompts if few else self._through_tokens
        return fuse(vision, lang, attention_mask_v, attention_mask_l)

    def _through_prompts(
        self, vision: Tensor, lang: Tensor, padding_v: Tensor | None, padding_l: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Project the prompts into the image tokens' space."""
        key = self._heads(self.l_proj(lang))  # (bs, num_heads, num_prompts, head_dim)
        per_head = (self.num_heads, self.head_dim)
        with in_float32(vision):  # their products may exceed what float16 holds
            key = key.float() * self.scale
            folded = key @ self.v_proj.weight.unflatten(0, per_head)  # (…, num_prompts, v_dim)
            offset = key @ self.v_proj.bias.unflatten(0, per_head)[..., None]  # (…, 1)
            folded, offset = folded.flatten(1, 2).transpose(1, 2), offset.flatten(1)[:, None]
            logits = vision.float() @ folded + offset  # (bs, num_points, num_heads * num_prompts)

        per_prompt = logits.unflatten(2, (self.num_heads, -1))
        if padding_l is not None:
            per_prompt = per_prompt.masked_fill(padding_l[:, None, None], _lowest(logits))
        to_image = F.dropout(per_prompt.softmax(dim=3), self.dropout, self.training).flatten(2)
        value = self._heads(self.values_l_proj(lang))
        widened = value @ self.out_v_proj.weight.t().unflatten(0, per_head)
        image = to_image @ widened.flatten(1, 2) + self.out_v_proj.bias

        if padding_v is not None:
            logits = logits.masked_fill(padding_v[..., None], _lowest(logits))
        # along the last dimension: CUDA's softmax along another took half of a step's work
        to_prompts = logits.transpose(1, 2).softmax(dim=2)
        to_prompts = F.dropout(to_prompts, self.dropout, self.training)
        seen = (to_prompts @ vision).unflatten(1, (self.num_heads, -1))
        # weights sum to 1, or to something near it after dropout
        total = to_prompts.sum(dim=2).unflatten(1, (self.num_heads, -1))[..., None]
        weight = self.values_v_proj.weight.unflatten(0, per_head)
        bias = self.values_v_proj.bias.unflatten(0, per_head)[:, None]
        value = seen @ weight.transpose(1, 2) + total * bias
        return image, self.out_l_proj(value.transpose(1, 2).flatten(2))

    def _through_tokens(
        self, vision: Tensor, lang: Tensor, padding_v: Tensor | None, padding_l: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Project everything into the attention's space, as mmdet does."""
        image_query = self._heads(self.v_proj(vision))
        prompt_key = self._heads(self.l_proj(lang))
        image_value = self._heads(self.values_v_proj(vision))
        prompt_value = self._heads(self.values_l_proj(lang))
        dropout = self.dropout if self.training else 0.0
        to_image = F.scaled_dot_product_attention(
            image_query, prompt_key, prompt_value, _visible(padding_l), dropout
        )
        # the same logits transposed: prompts look at the image
        to_prompts = F.scaled_dot_product_attention(
            prompt_key, image_query, image_value, _visible(padding_v), dropout
        )
        return (
            self.out_v_proj(to_image.transpose(1, 2).flatten(2)),
            self.out_l_proj(to_prompts.transpose(1, 2).flatten(2)),
        )

    def _heads(self, tokens: Tensor) -> Tensor:
        bs, length, _ = tokens.shape
        # (bs, num_heads, length, head_dim)
        return tokens.view(bs, length, self.num_heads, self.head_dim).transpose(1, 2)


def _visible(padding: Tensor | None) -> Tensor | None:
    """(bs, n) True at padding -> (bs, 1, 1, n) True where visible."""
    return None if padding is None else ~padding[:, None, None]


def _lowest(logits: Tensor) -> float:
    """What masks a logit in a softmax without making NaN where all are masked."""
    return torch.finfo(logits.dtype).min
