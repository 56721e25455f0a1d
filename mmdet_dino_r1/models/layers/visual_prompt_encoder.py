"""Boxes on images -> visual prompts (arXiv 2505.24025, visual prompt encoder).

Shapes: bs, num_points (sum of H*W over levels), num_levels, num_boxes, dim.
Boxes are normalised (cx, cy, w, h), relative to the unpadded image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import MLP, DeformableDetrTransformerDecoderLayer, coordinate_to_encoding
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...utils.device_copy import to_device
from .attention import FusedMultiheadAttention, attend_to_self_only
from .deformable_attention import LevelwiseDeformableAttention


class PromptEncoderLayer(DeformableDetrTransformerDecoderLayer):
    """mmdet's deformable decoder layer in another order: look, then self-attention, then FFN.

    Args:
        embed_dims: dim.
        num_levels: feature levels.
        num_heads: heads of both attentions.
        num_points: sampling points per head and level.
        feedforward_channels: hidden width of the FFN.
    """

    def __init__(
        self,
        embed_dims: int,
        num_levels: int,
        num_heads: int,
        num_points: int,
        feedforward_channels: int,
    ) -> None:
        super().__init__(
            self_attn_cfg=dict(embed_dims=embed_dims, num_heads=num_heads, batch_first=True),
            cross_attn_cfg=dict(
                embed_dims=embed_dims,
                num_heads=num_heads,
                num_levels=num_levels,
                num_points=num_points,
                dropout=0.0,
                batch_first=True,
            ),
            ffn_cfg=dict(
                embed_dims=embed_dims,
                feedforward_channels=feedforward_channels,
                num_fcs=2,
                ffn_drop=0.0,
                act_cfg=dict(type='ReLU', inplace=True),
            ),
        )

    def _init_layers(self) -> None:
        super()._init_layers()
        self.self_attn = FusedMultiheadAttention(**self.self_attn_cfg)
        self.cross_attn = LevelwiseDeformableAttention(**self.cross_attn_cfg)

    def forward(
        self, query: Tensor, query_pos: Tensor, may_not_see: Tensor | None = None, **image
    ) -> Tensor:
        """One post-norm layer; ``query`` and ``query_pos`` are (bs, num_tokens, dim).

        ``may_not_see`` (bs, num_tokens, num_tokens) bool is True where a token may not look at
        another; None: each sees itself alone. The other arguments are those of
        :class:`LevelwiseDeformableAttention` for the ``image``.
        """
        query = self.norms[0](self.cross_attn(query=query, query_pos=query_pos, **image))
        if may_not_see is None:  # then its position has no effect
            query = attend_to_self_only(self.self_attn, query)
        else:
            # images first, then heads, as PyTorch counts them (mmdet and PET-DINO mix them up)
            mask = may_not_see.repeat_interleave(self.self_attn.num_heads, dim=0)
            query = self.self_attn(
                query, query, query, query_pos=query_pos, key_pos=query_pos, attn_mask=mask
            )
        return self.norms[2](self.ffn(self.norms[1](query)))


def slots_in_images(image_index: Tensor, batch_size: int) -> Tensor:
    """Rank of each of (n,) tokens among those of its image, long; all on the CPU."""
    in_image = image_index[:, None] == torch.arange(batch_size)
    return in_image.long().cumsum(0).gather(1, image_index[:, None])[:, 0] - 1


def on_levels(boxes: Tensor, valid_ratios: Tensor) -> Tensor:
    """(bs, n, 4) boxes of the unpadded image as (bs, n, num_levels, 4) of the padded levels."""
    scale = torch.cat([valid_ratios, valid_ratios], dim=-1)  # (bs, num_levels, 4)
    return boxes[:, :, None] * scale[:, None]


class BoxPromptEncoder(BaseModule):
    """What prompt encoders share: a learned content, an encoding of the box, post-norm layers.

    Attributes:
        joint: whether the boxes of a class on one image give one embedding together.
    """

    joint: bool

    def __init__(self, embed_dims: int, num_levels: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.embed_dims = embed_dims
        self.num_levels = num_levels
        self.content = nn.Embedding(1, embed_dims)
        # the encoding has dim / 2 numbers for each of the 4 coordinates
        self.position = MLP(2 * embed_dims, embed_dims, embed_dims, 2)

    def init_weights(self) -> None:
        """Xavier for the layers' matrices, as mmdet initialises the encoder and the decoder."""
        super().init_weights()
        for layer in self.modules():
            if isinstance(layer, PromptEncoderLayer):
                for parameter in layer.parameters():
                    if parameter.dim() > 1:
                        nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()

    def encode_position(self, reference_points: Tensor, dtype: torch.dtype) -> Tensor:
        """(bs, n, num_levels, 4) reference boxes -> (bs, n, dim), of those on the first level."""
        encoding = coordinate_to_encoding(
            reference_points[:, :, 0], num_feats=self.embed_dims // 2
        )  # (bs, n, 2 * dim)
        return self.position(encoding.to(dtype))


@MODELS.register_module()
class VisualPromptEncoder(BoxPromptEncoder):
    """Turn each box into one embedding of what the image shows there.

    The query is one learned content embedding shared by all boxes plus an encoding of the
    box; it looks at the image by deformable attention around the box. Prompts do not see one
    another.

    Args:
        embed_dims: dim, width of the features and of the prompts.
        num_levels: feature levels.
        num_heads: heads of both attentions.
        num_points: sampling points per head and level.
        feedforward_channels: hidden width of the FFN.
        init_cfg: as everywhere in mmengine.
    """

    joint = False

    def __init__(
        self,
        embed_dims: int = 256,
        num_levels: int = 4,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_channels: int = 2048,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(embed_dims, num_levels, init_cfg)
        self.layer = PromptEncoderLayer(
            embed_dims, num_levels, num_heads, num_points, feedforward_channels
        )

    @property
    def output_norm(self) -> nn.LayerNorm:
        """What the prompts come out of."""
        return self.layer.norms[-1]

    def forward(
        self,
        feat: Tensor,
        feat_mask: Tensor | None,
        spatial_shapes: Sequence[tuple[int, int]],
        level_start_index: Tensor,
        valid_ratios: Tensor,
        image_index: Tensor,
        boxes: Tensor,
        box_sets: Tensor | None = None,
    ) -> Tensor:
        """Encode boxes that lie anywhere in the batch; gives (num_boxes, dim) in their order.

        ``boxes`` are (num_boxes, 4) normalised (cx, cy, w, h), ``image_index`` (num_boxes,) long,
        on the CPU, is the image of each. ``feat`` (bs, num_points, dim) are flattened features of
        the neck or the encoder's memory, ``feat_mask`` (bs, num_points) bool is True at padding.
        For each level ``spatial_shapes`` are (h, w), numbers, and ``valid_ratios``
        (bs, num_levels, 2) the valid share of (w, h). ``box_sets`` is for joint encoders.
        """
        bs = feat.shape[0]
        # lay the boxes out as (bs, most boxes of an image)
        slot = slots_in_images(image_index, bs)
        where = tuple(to_device(feat.device, image_index, slot))
        grid = boxes.new_full((bs, int(slot.max()) + 1, 4), 0.5)
        grid[where] = boxes
        reference_points = on_levels(grid, valid_ratios)
        prompts = self.layer(
            self.content.weight.expand(bs, grid.shape[1], -1),
            query_pos=self.encode_position(reference_points, feat.dtype),
            value=feat,
            key_padding_mask=feat_mask,
            reference_points=reference_points,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
        )
        return prompts[where]
