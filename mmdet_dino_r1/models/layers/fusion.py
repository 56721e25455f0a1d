"""Encoder and decoder of Grounding DINO, with visual prompts in the place of text.

Both can do without fusion (late prompting): image tokens and queries then see no prompt, as in
plain DINO, and the parts for it do not exist.

Shapes: bs, num_points (sum of H*W over levels), num_levels, num_prompts, num_queries, dim.
Names: spatial_shapes = (h, w) of each level, numbers; level_start_index = (num_levels,);
valid_ratios = (bs, num_levels, 2) valid share of (w, h); key_padding_mask = (bs, num_points) bool,
True at padding, or None; memory_text = (bs, num_prompts, dim) prompts; text_attention_mask =
(bs, num_prompts) bool, True at padding; token_indices = (bs, n) image tokens whose memory is
wanted, None: all.
Parameter names are mmdet's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmdet.models.layers import (
    DetrTransformerEncoderLayer,
    coordinate_to_encoding,
    inverse_sigmoid,
)
from mmdet.models.layers.transformer.deformable_detr_layers import (
    DeformableDetrTransformerEncoderLayer,
)
from mmdet.models.layers.transformer.grounding_dino_layers import (
    GroundingDinoTransformerDecoder,
    GroundingDinoTransformerDecoderLayer,
    GroundingDinoTransformerEncoder,
)
from mmdet.models.utils.vlfuse_helper import SingleScaleBiAttentionBlock
from mmengine.model import ModuleList
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...structures import take_tokens
from .attention import FusedBiAttention, FusedMultiheadAttention, attend_to_self_only
from .chunking import in_chunks
from .deformable_attention import LevelwiseDeformableAttention
from .token_grid import reference_points, token_grid


class PromptFusionBlock(SingleScaleBiAttentionBlock):
    """mmdet's fusion block around :class:`FusedBiAttention`.

    ``v_dim`` and ``l_dim`` are the widths of image tokens and prompts, ``embed_dim`` and
    ``num_heads`` are the attention's, ``dropout`` is that of its weights.
    """

    def __init__(
        self, v_dim: int, l_dim: int, embed_dim: int, num_heads: int, dropout: float = 0.1, **kwargs
    ) -> None:
        super().__init__(v_dim, l_dim, embed_dim, num_heads, dropout, **kwargs)
        self.attn = FusedBiAttention(v_dim, l_dim, embed_dim, num_heads, dropout)


class PromptLayer(DetrTransformerEncoderLayer):
    """Grounding DINO's text layer when every token attends to itself alone."""

    def forward(self, query: Tensor) -> Tensor:
        """(bs, num_prompts, dim) to the same."""
        query = self.norms[0](attend_to_self_only(self.self_attn, query))
        return self.norms[1](self.ffn(query))


class ImageLayer(DeformableDetrTransformerEncoderLayer):
    """Deformable DETR's encoder layer, for all image tokens or for some."""

    def _init_layers(self) -> None:
        super()._init_layers()
        self.self_attn = LevelwiseDeformableAttention(**self.self_attn_cfg)
        keep_views(self.ffn)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        key_padding_mask: Tensor | None,
        reference_points: Tensor,
        token_indices: Tensor | None = None,
        **levels: Tensor,
    ) -> Tensor:
        """One layer, to (bs, num_points, dim) or, of the tokens wanted, (bs, n, dim).

        ``query`` is (bs, num_points, dim), ``query_pos`` the same, ``reference_points``
        (bs, num_points, num_levels, 2) (x, y); ``levels`` are the attention's.
        """
        memory = query
        if token_indices is not None:
            query, query_pos, reference_points = (
                take_tokens(tokens, token_indices)
                for tokens in (query, query_pos, reference_points.flatten(2))
            )
            reference_points = reference_points.unflatten(2, (-1, 2))
        query = self.self_attn(
            query=query,
            value=memory,
            query_pos=query_pos,
            key_padding_mask=key_padding_mask,
            reference_points=reference_points,
            **levels,
        )
        return self.norms[1](in_chunks(self.ffn, self.norms[0](query)))


class PromptFusionEncoder(GroundingDinoTransformerEncoder):
    """Grounding DINO's encoder for prompts that do not see one another.

    Differs from the parent: prompt layers in closed form and padding that hides (see
    ``attention.py``); activation checkpointing (``num_cp``) by PyTorch, so fairscale is
    not needed; where only some tokens' memory is wanted, the last layer computes no other.

    Args:
        fusion: whether image and prompts see each other; if not, there are image layers only.
        **kwargs: the parent's.
    """

    def __init__(self, *, fusion: bool = True, **kwargs) -> None:
        self.fusion = fusion
        super().__init__(**kwargs)

    def _init_layers(self) -> None:
        def build(layer: Callable[..., nn.Module], cfg: dict) -> ModuleList:
            return ModuleList([layer(**cfg) for _ in range(self.num_layers)])

        self.layers = build(ImageLayer, self.layer_cfg)
        if self.fusion:
            self.text_layers = build(PromptLayer, self.text_layer_cfg)
            self.fusion_layers = build(PromptFusionBlock, self.fusion_layer_cfg)
        self.embed_dims = self.layers[0].embed_dims

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        key_padding_mask: Tensor | None,
        spatial_shapes: Sequence[tuple[int, int]],
        level_start_index: Tensor,
        valid_ratios: Tensor,
        memory_text: Tensor | None = None,
        text_attention_mask: Tensor | None = None,
        token_indices: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Alternate fusion, prompt layer and deformable self-attention.

        ``query`` (bs, num_points, dim) are the flattened features, ``query_pos`` their positions.
        Without fusion prompts are not looked at.

        Returns:
            Image memory (bs, num_points or n, dim) and the prompts (bs, num_prompts, dim), fused.
        """
        positions = reference_points(token_grid(spatial_shapes, query.device), valid_ratios)
        for index, layer in enumerate(self.layers):
            save_memory = self.training and index < self.num_cp
            if self.fusion:
                query, memory_text = _run(
                    save_memory,
                    self.fusion_layers[index],
                    query,
                    memory_text,
                    key_padding_mask,
                    text_attention_mask,
                )
                memory_text = self.text_layers[index](memory_text)
            query = _run(
                save_memory,
                layer,
                query,
                query_pos,
                key_padding_mask,
                reference_points=positions,
                token_indices=token_indices if index == len(self.layers) - 1 else None,
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
            )
        return query, memory_text


class PromptDecoderLayer(GroundingDinoTransformerDecoderLayer):
    """Grounding DINO's decoder layer with fused attention."""

    def _init_layers(self) -> None:
        super()._init_layers()
        self.self_attn = FusedMultiheadAttention(**self.self_attn_cfg)
        self.cross_attn_text = FusedMultiheadAttention(**self.cross_attn_text_cfg)
        self.cross_attn = LevelwiseDeformableAttention(**self.cross_attn_cfg)
        keep_views(self.ffn)


class LateDecoderLayer(PromptDecoderLayer):
    """The same without attention to the prompts; the other norms keep their names."""

    def _init_layers(self) -> None:
        super()._init_layers()
        self.cross_attn_text, self.norms[1] = Unchanged(), nn.Identity()


class Unchanged(nn.Module):
    """In place of an attention that is left out."""

    def forward(self, query: Tensor, **_) -> Tensor:
        """``query`` as it is."""
        return query


class PromptDecoder(GroundingDinoTransformerDecoder):
    """Grounding DINO's decoder made of :class:`PromptDecoderLayer`, or :class:`LateDecoderLayer`.

    Differs from the parent: onedl-mmdetection 3.5.1 encodes the reference boxes at twice the
    width (``num_feats=query.shape[2]`` in ``DinoTransformerDecoder.forward``) that its Grounding
    DINO's ``ref_point_head`` and every published checkpoint have, so its own Grounding DINO does
    not run. Here the width is the published one on both stacks.

    Args:
        fusion: whether queries see the prompts.
        **kwargs: the parent's.
    """

    def __init__(self, *, fusion: bool = True, **kwargs) -> None:
        self.fusion = fusion
        super().__init__(**kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        layer = PromptDecoderLayer if self.fusion else LateDecoderLayer
        self.layers = ModuleList([layer(**self.layer_cfg) for _ in self.layers])

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        self_attn_mask: Tensor | None,
        reference_points: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        level_start_index: Tensor,
        valid_ratios: Tensor,
        reg_branches: ModuleList,
        **prompts,
    ) -> tuple[Tensor, Tensor]:
        """Refine queries and their boxes layer by layer.

        ``query`` is (bs, num_queries, dim), denoising queries first, and ``reference_points``
        (bs, num_queries, 4) normalised (cx, cy, w, h); ``value`` (bs, num_points, dim) is the
        memory. ``self_attn_mask`` (num_queries, num_queries) is True where a query may not look,
        or None. ``reg_branches`` give the box offsets, one module for each layer; ``prompts`` are
        ``memory_text`` and ``text_attention_mask``.

        Returns:
            Normalised hidden states (num_layers, bs, num_queries, dim) and the boxes before
            and after each layer (num_layers + 1, bs, num_queries, 4); the gradient of a box
            reaches back through one more layer ("look forward twice" of DINO).
        """
        scale = torch.cat([valid_ratios, valid_ratios], dim=-1)[:, None]  # (bs, 1, levels, 4)
        states, boxes = [], [reference_points]
        for layer, reg_branch in zip(self.layers, reg_branches, strict=False):
            on_levels = reference_points[:, :, None] * scale  # (bs, num_queries, levels, 4)
            encoding = coordinate_to_encoding(on_levels[:, :, 0], num_feats=self.embed_dims // 2)
            query = layer(
                query,
                query_pos=self.ref_point_head(encoding.to(query.dtype)),
                value=value,
                key_padding_mask=key_padding_mask,
                self_attn_mask=self_attn_mask,
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
                valid_ratios=valid_ratios,
                reference_points=on_levels,
                **prompts,
            )
            refined = (reg_branch(query) + inverse_sigmoid(reference_points, eps=1e-3)).sigmoid()
            reference_points = refined.detach()
            states.append(self.norm(query))
            boxes.append(refined)
        return torch.stack(states), torch.stack(boxes)


def keep_views(ffn: nn.Module) -> None:
    """Switch in-place activations of ``ffn`` off; its results stay as they are.

    The output of a linear layer is a view, and autograd pays for writing to a view with copies
    of the whole in the backward pass; written elsewhere it needs none and saves as much.
    """
    for module in ffn.modules():
        if hasattr(module, 'inplace'):
            module.inplace = False


def _run(save_memory: bool, layer: nn.Module, *args, **kwargs) -> Tensor | tuple[Tensor, Tensor]:
    """Call ``layer``; to save memory, forget its activations and recompute them backward."""
    if save_memory and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False, **kwargs)
    return layer(*args, **kwargs)
