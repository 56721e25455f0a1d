"""All boxes of a class on an image -> one visual prompt (after PET-DINO, arXiv 2604.00503).

Shapes: bs, num_points (sum of H*W over levels), num_levels, num_boxes, num_sets (one for each class
and image), num_tokens (of the image that has most), dim. Boxes are normalised (cx, cy, w, h),
relative to the unpadded image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...utils.device_copy import remembered_rows, to_device
from .attention import FusedMultiheadAttention
from .visual_prompt_encoder import (
    BoxPromptEncoder,
    PromptEncoderLayer,
    on_levels,
    slots_in_images,
)


class JointPromptLayer(PromptEncoderLayer):
    """The same where tokens of one class on one image see one another."""

    def _init_layers(self) -> None:
        super()._init_layers()
        self.self_attn = FusedMultiheadAttention(**self.self_attn_cfg)

    def forward(self, query: Tensor, query_pos: Tensor, attn_mask: Tensor, **image) -> Tensor:
        """As the parent's; ``attn_mask`` (bs * num_heads, num_tokens, num_tokens) bool hides."""
        query = self.norms[0](self.cross_attn(query=query, query_pos=query_pos, **image))
        query = self.self_attn(
            query, query, query, query_pos=query_pos, key_pos=query_pos, attn_mask=attn_mask
        )
        return self.norms[2](self.ffn(self.norms[1](query)))


@MODELS.register_module()
class JointPromptEncoder(BoxPromptEncoder):
    """Turn the boxes of a class on one image into one embedding, together.

    Each box is a token, and so is the whole image, once for every class that has boxes there. In
    each layer tokens look at the image around their box; then those of one class on one image
    see one another. The prompt is what the whole image's token has become.

    Parameter names are PET-DINO's within the layers.

    Args:
        embed_dims: dim, width of the features and of the prompts.
        num_levels: feature levels.
        num_layers: layers, each with weights of its own.
        num_heads: heads of both attentions.
        num_points: sampling points per head and level.
        feedforward_channels: hidden width of the FFN.
        init_cfg: as everywhere in mmengine.
    """

    joint = True

    def __init__(
        self,
        embed_dims: int = 256,
        num_levels: int = 4,
        num_layers: int = 3,
        num_heads: int = 4,
        num_points: int = 4,
        feedforward_channels: int = 1024,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(embed_dims, num_levels, init_cfg)
        self.num_heads = num_heads
        self.image_content = nn.Embedding(1, embed_dims)
        self.content_map = nn.Linear(embed_dims, embed_dims)
        self.layers = nn.ModuleList(
            JointPromptLayer(embed_dims, num_levels, num_heads, num_points, feedforward_channels)
            for _ in range(num_layers)
        )

    @property
    def output_norm(self) -> nn.LayerNorm:
        """What the prompts come out of."""
        return self.layers[-1].norms[-1]

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
        """Encode boxes that lie anywhere in the batch; gives (num_sets, dim).

        Arguments are those of :meth:`VisualPromptEncoder.forward`. ``box_sets`` (num_boxes,) long,
        on the CPU, is the set of each box, from 0 on without a gap; the boxes of a set lie on one
        image. None: each box is a set by itself.
        """
        bs, num_boxes = len(feat), len(boxes)
        if box_sets is None:
            box_sets = torch.arange(num_boxes)
        num_sets = int(box_sets.max()) + 1
        # tokens: the boxes, then the whole image of each set
        image_of_set = image_index.new_zeros(num_sets).index_copy(0, box_sets, image_index)
        image = torch.cat([image_index, image_of_set])
        slot = slots_in_images(image, bs)
        num_tokens = int(slot.max()) + 1
        # (bs, num_tokens); a slot that is left empty sees itself alone
        sets = (-1 - torch.arange(num_tokens)).repeat(bs, 1)
        sets[image, slot] = torch.cat([box_sets, torch.arange(num_sets)])
        is_image = torch.zeros(bs, num_tokens, dtype=torch.long)
        is_image[image_of_set, slot[num_boxes:]] = 1
        image, slot, sets, is_image = to_device(feat.device, image, slot, sets, is_image)

        whole = remembered_rows([(0.5, 0.5, 1.0, 1.0)], boxes.device).to(boxes.dtype)
        grid = whole.expand(bs, num_tokens, 4).clone()
        grid[image[:num_boxes], slot[:num_boxes]] = boxes
        reference_points = on_levels(grid, valid_ratios)
        position = self.encode_position(reference_points, feat.dtype)
        contents = torch.cat([self.content.weight, self.image_content.weight])
        tokens = self.content_map(contents)[is_image]  # (bs, num_tokens, dim)
        may_not_see = sets[:, :, None] != sets[:, None]
        # images first, then heads, as PyTorch counts them (mmdet and PET-DINO mix them up)
        attn_mask = may_not_see.repeat_interleave(self.num_heads, dim=0)
        for layer in self.layers:
            tokens = layer(
                tokens,
                query_pos=position,
                attn_mask=attn_mask,
                value=feat,
                key_padding_mask=feat_mask,
                reference_points=reference_points,
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
            )
        return tokens[image[num_boxes:], slot[num_boxes:]]
