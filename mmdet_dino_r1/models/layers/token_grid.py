"""Where the image tokens lie: constants of sizes, made once for each.

Shapes: bs, num_levels, num_points (sum of H*W over levels), dim.
Names: spatial_shapes = (h, w) of each level, numbers; grid = :func:`token_grid` of them;
valid_ratios = (bs, num_levels, 2) valid share of (w, h); device = where the result is wanted.

Equal to mmdet's ``get_encoder_reference_points``, ``gen_encoder_output_proposals`` and what its
``pre_transformer`` makes of the images' sizes. mmdet makes them anew in every step and, on CUDA,
waits for the device at each level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...utils.device_copy import remembered, to_device


class TokenGrid(NamedTuple):
    """The tokens of all levels, row by row, level after level.

    Attributes:
        cells: (num_points, 2) centre (x, y) in units of the level's cells: 0.5, 1.5, …
        level: (num_points,) long, the token's level.
        sizes: (num_levels, 2) float (w, h) of each level.
        shapes: (num_levels, 2) long (h, w), as mmcv's CUDA operator wants them.
        starts: (num_levels,) long, first token of each level, likewise.
    """

    cells: Tensor
    level: Tensor
    sizes: Tensor
    shapes: Tensor
    starts: Tensor


@remembered(maxsize=256)
def token_grid(spatial_shapes: Sequence[tuple[int, int]], device: torch.device) -> TokenGrid:
    """The grid of feature maps of these sizes; remembered, so not to be written to."""
    cells, level = [], []
    for index, (height, width) in enumerate(spatial_shapes):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
        cells.append(torch.stack([x.flatten(), y.flatten()], dim=1) + 0.5)
        level.append(torch.full((height * width,), index))
    shapes = torch.tensor(spatial_shapes)
    tokens = shapes.prod(dim=1)
    grid = TokenGrid(
        cells=torch.cat(cells),
        level=torch.cat(level),
        sizes=shapes.flip(1).float(),
        shapes=shapes,
        starts=tokens.cumsum(0) - tokens,
    )
    return TokenGrid(*to_device(device, *grid))


class ImagePadding(NamedTuple):
    """Which part of each level is image, in a batch of images padded to one size.

    Attributes:
        masks: (bs, h, w) bool of each level, True at padding; None for each without any.
        token_mask: (bs, num_points) bool, the same for all levels; None without any.
        valid_ratios: (bs, num_levels, 2) float, valid share of (w, h).
    """

    masks: tuple[Tensor | None, ...]
    token_mask: Tensor | None
    valid_ratios: Tensor


# a step and its reference model ask for the same; masks are larger than grids, so few are kept
@remembered(maxsize=8)
def image_padding(
    img_shapes: Sequence[tuple[int, int]],
    input_shape: tuple[int, int],
    spatial_shapes: Sequence[tuple[int, int]],
    device: torch.device,
) -> ImagePadding:
    """The padding of images of ``img_shapes`` (h, w), padded to ``input_shape`` (h, w).

    Remembered, so not to be written to.
    """
    rows, columns = (
        [_padded(of_images, padded_to, length) for length in lengths]
        for of_images, padded_to, lengths in zip(
            zip(*img_shapes, strict=True),
            input_shape,
            zip(*spatial_shapes, strict=True),
            strict=True,
        )
    )
    valid = [
        torch.stack([(~of_level).sum(dim=1) / of_level.shape[1] for of_level in pair], dim=1)
        for pair in zip(columns, rows, strict=True)
    ]
    valid_ratios = torch.stack(valid, dim=1)
    if all(image == input_shape for image in img_shapes):
        return ImagePadding((None,) * len(spatial_shapes), None, *to_device(device, valid_ratios))
    valid_ratios, *padded = to_device(device, valid_ratios, *rows, *columns)
    pairs = zip(padded[: len(rows)], padded[len(rows) :], strict=True)
    masks = [of_rows[:, :, None] | of_columns[:, None] for of_rows, of_columns in pairs]
    token_mask = torch.cat([mask.flatten(1) for mask in masks], dim=1)
    return ImagePadding(tuple(masks), token_mask, valid_ratios)


def _padded(of_images: Sequence[int], padded_to: int, length: int) -> Tensor:
    """(bs, length) bool: which rows (or columns) of a level are padding, as mmdet rounds it."""
    padding = torch.arange(padded_to) >= torch.tensor(of_images)[:, None]
    return F.interpolate(padding[:, None].float(), size=length)[:, 0].bool()


def flatten_levels(
    mlvl_feats: Sequence[Tensor],
    padding: ImagePadding,
    encoding: nn.Module,
    level_embed: Tensor,
) -> tuple[Tensor, Tensor]:
    """Feature maps as tokens, and the tokens' positions; both (bs, num_points, dim).

    ``mlvl_feats`` are (bs, dim, h, w) of each level. Positions are mmdet's sine ``encoding`` of
    each level's mask, plus its row of ``level_embed`` (num_levels, dim).
    """
    tokens = [feat.flatten(2).transpose(1, 2) for feat in mlvl_feats]
    positions = [
        encoding(mask, input=feat).flatten(2).transpose(1, 2) + embedding
        for mask, feat, embedding in zip(padding.masks, mlvl_feats, level_embed, strict=True)
    ]
    return torch.cat(tokens, dim=1), torch.cat(positions, dim=1)


def reference_points(grid: TokenGrid, valid_ratios: Tensor) -> Tensor:
    """Each token's own position, (bs, num_points, num_levels, 2) (x, y) of the padded level."""
    valid_size = (valid_ratios * grid.sizes)[:, grid.level]  # (bs, num_points, 2) in cells
    return (grid.cells / valid_size)[:, :, None] * valid_ratios[:, None]


def proposals(
    grid: TokenGrid, valid_ratios: Tensor, padding: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A box around each token, 5 % of the image wide on the first level, twice that on the next.

    ``padding`` is (bs, num_points) bool, True at padding, or None.

    Returns:
        (bs, num_points, 4) (cx, cy, w, h) before the sigmoid, relative to the unpadded image, and
        (bs, num_points) bool, True where the token is padding or its box within 1 % of 0 or 1;
        there the box is inf.
    """
    # rounded: a whole number of cells, divided and multiplied again
    valid_size = (valid_ratios * grid.sizes).round()[:, grid.level]
    centres = grid.cells / valid_size
    side = (0.05 * 2.0**grid.level)[None, :, None].expand_as(centres)
    boxes = torch.cat([centres, side], dim=-1)
    invalid_mask = ((boxes <= 0.01) | (boxes >= 0.99)).any(dim=-1)
    if padding is not None:
        invalid_mask = invalid_mask | padding
    return torch.logit(boxes).masked_fill(invalid_mask[..., None], float('inf')), invalid_mask
