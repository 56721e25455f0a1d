"""mmcv's multi-scale deformable attention without its waits and its largest intermediates.

Shapes: bs, num_queries, num_keys (sum of H*W over levels), num_heads, num_levels, num_points
(sampled per head and level), dim, head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    MultiScaleDeformableAttnFunction,
)
from torch import Tensor

from .chunking import in_chunks
from .token_grid import token_grid


class LevelwiseDeformableAttention(MultiScaleDeformableAttention):
    """The parent's parameters and results, faster.

    Differs from mmcv (``mmcv/ops/multi_scale_deform_attn.py``): batch first only; the sizes of
    the levels are numbers, so that reading them waits for no device (mmcv compares a tensor of
    them with the number of keys in every call); on the CPU the levels are sampled and summed
    one by one, with a fourth of the intermediates (ours); on CUDA the operator runs in float32
    whatever autocast says (mmcv falls back to the CPU's form for bfloat16, and rounds positions
    to half precision for float16).
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Sequence[tuple[int, int]] = (),
        level_start_index: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Attend, with the residual; gives (bs, num_queries, dim).

        ``query``, ``identity`` (the residual) and ``query_pos`` are (bs, num_queries, dim),
        ``value`` is (bs, num_keys, dim); without them ``identity`` and ``value`` are ``query``.
        ``key_padding_mask`` (bs, num_keys) bool is True at padding. ``reference_points`` are
        (bs, num_queries, num_levels, 2) (x, y) or, with 4, boxes (cx, cy, w, h), relative to the
        padded level. ``spatial_shapes`` are (h, w) of each level, numbers; ``level_start_index``
        (num_levels,) is the first key of each. ``key`` and ``kwargs`` have no effect.
        """
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.num_heads, -1))
        layout = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*layout, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.num_heads, -1)).softmax(-1)
        weights = weights.unflatten(-1, layout[1:])  # (bs, num_queries, *layout)
        grid = token_grid(spatial_shapes, query.device)
        if reference_points.shape[-1] == 2:
            reach = 1 / grid.sizes[:, None]  # an offset of 1 is one cell
        else:
            reach = reference_points[:, :, None, :, None, 2:] * (0.5 / self.num_points)
        positions = reference_points[:, :, None, :, None, :2] + offsets * reach
        if value.is_cuda:
            out = MultiScaleDeformableAttnFunction.apply(
                value.float(),
                grid.shapes,
                level_start_index,
                positions.float(),
                weights.float(),
                self.im2col_step,
            ).to(value.dtype)
        else:
            sample = partial(sample_levels, by_level(value, spatial_shapes))
            out = in_chunks(sample, positions, weights)
        return self.dropout(self.output_proj(out)) + identity


def by_level(value: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """(bs, num_keys, num_heads, head_dim) to (bs * num_heads, head_dim, h, w) of each level."""
    value = value.permute(0, 2, 3, 1).flatten(0, 1)  # (bs * num_heads, head_dim, num_keys)
    levels = value.split([height * width for height, width in shapes], dim=2)
    return [keys.unflatten(2, shape) for keys, shape in zip(levels, shapes, strict=True)]


def sample_levels(levels: Sequence[Tensor], positions: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinear samples, (bs, num_queries, num_heads * head_dim).

    ``levels`` are from :func:`by_level`. ``positions`` are (bs, num_queries, num_heads, num_levels,
    num_points, 2) (x, y), 0 to 1 within the level; samples outside are 0. ``weights`` have the same
    shape without the last dimension. The result has the precision of ``positions``.
    """
    bs, num_queries, num_heads, *_ = positions.shape
    # (bs * num_heads, num_levels, num_queries, num_points, 2)
    corners = (2 * positions - 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)
    weights = weights.permute(0, 2, 3, 1, 4).flatten(0, 1)[:, :, None]
    out = None
    for level, values in enumerate(levels):
        # (bs * num_heads, head_dim, num_queries, num_points)
        # in the positions' precision: half precision is too coarse for them
        sampled = F.grid_sample(values.to(corners), corners[:, level], align_corners=False)
        summed = (sampled * weights[:, level]).sum(dim=-1)
        out = summed if out is None else out + summed
    return out.view(bs, num_heads * levels[0].shape[1], num_queries).transpose(1, 2)
