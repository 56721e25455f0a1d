"""mmdet's Swin Transformer with fused window attention.

Shapes: bs, height, width (of a feature map), dim, num_windows (of one image),
area (of a window, size * size), num_heads, head_dim.
Names: rows, columns = of windows in an image; size = of a window's side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.models.backbones import SwinTransformer
from mmdet.models.backbones.swin import ShiftWindowMSA
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from ...utils.device_copy import remembered, to_device

# Hides; mmdet's -100 leaves weights of e^-100, denormal numbers that slow a CPU down
HIDDEN = -10_000.0


@MODELS.register_module()
class FusedSwinTransformer(SwinTransformer):
    """mmdet's ``SwinTransformer``: arguments are the parent's, parameters and results, too."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for stage in self.stages:
            for block in stage.blocks:
                block.attn = FusedWindowAttention(block.attn)


class FusedWindowAttention(BaseModule):
    """Attention within (shifted) windows, through PyTorch's fused kernel where that is faster.

    Differs from mmdet (``mmdet/models/backbones/swin.py``) in speed alone. Position bias and shift
    mask reach the attention as one summand; mmdet makes the mask anew in every block of every
    step, by some twenty small kernels. Where a gradient is wanted on a CPU, no fused kernel takes
    a bias that learns: there the bias is added within the product of queries and keys.

    Args:
        attention: whose parameters, dropout and sizes are taken over.
    """

    def __init__(self, attention: ShiftWindowMSA) -> None:
        super().__init__()
        self.window_size = attention.window_size
        self.shift_size = attention.shift_size
        self.w_msa = attention.w_msa
        self.drop = attention.drop

    def forward(self, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Attend from ``query`` (bs, height * width, dim); the block adds the residual.

        ``hw_shape`` is (height, width).
        """
        height, width = hw_shape
        size, shift = self.window_size, self.shift_size
        bs, _, dim = query.shape
        image = query.view(bs, height, width, dim)
        bottom, right = -height % size, -width % size
        if bottom or right:
            image = F.pad(image, (0, 0, 0, right, 0, bottom))
        if shift:
            image = image.roll((-shift, -shift), dims=(1, 2))
        rows, columns = (height + bottom) // size, (width + right) // size
        windows = image.view(bs, rows, size, columns, size, dim).transpose(2, 3)
        out = self.attend(windows.reshape(bs * rows * columns, size * size, dim), rows, columns)
        image = out.view(bs, rows, columns, size, size, dim).transpose(2, 3)
        image = image.reshape(bs, height + bottom, width + right, dim)
        if shift:
            image = image.roll((shift, shift), dims=(1, 2))
        return self.drop(image[:, :height, :width].reshape(query.shape))

    def attend(self, windows: Tensor, rows: int, columns: int) -> Tensor:
        """Attention within (bs * num_windows, area, dim) windows, image by image, row by row."""
        msa = self.w_msa
        count, area, dim = windows.shape
        # each (count, num_heads, area, head_dim)
        query, key, value = (
            msa.qkv(windows).view(count, area, 3, msa.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        )
        # (1 or num_windows, num_heads, area, area)
        bias = self.bias(rows, columns).to(query.dtype)
        bias = bias.expand(count // len(bias), *bias.shape).flatten(0, 1)
        dropout = msa.attn_drop.p if self.training else 0.0
        if bias.requires_grad and not windows.is_cuda:
            logits = torch.baddbmm(
                bias.flatten(0, 1),
                query.flatten(0, 1),
                key.flatten(0, 1).transpose(1, 2),
                alpha=msa.scale,
            )
            weights = F.dropout(logits.softmax(dim=-1), dropout)
            out = torch.bmm(weights.to(value.dtype), value.flatten(0, 1)).view_as(query)
        else:
            out = F.scaled_dot_product_attention(query, key, value, bias, dropout, scale=msa.scale)
        return msa.proj_drop(msa.proj(out.transpose(1, 2).reshape(count, area, dim)))

    def bias(self, rows: int, columns: int) -> Tensor:
        """What is added to the logits: (num_windows, num_heads, area, area).

        Where windows are not shifted it is the same for all, (1, num_heads, area, area).
        """
        table, index = self.w_msa.relative_position_bias_table, self.w_msa.relative_position_index
        if not torch.is_grad_enabled():
            table = table.detach()  # a fused kernel asks whether its bias learns
        bias = table[index].permute(2, 0, 1)[None]
        if self.shift_size == 0:
            return bias
        mask = shift_mask(rows, columns, self.window_size, self.shift_size, table.device)
        return bias + mask[:, None]


@remembered(maxsize=256)
def shift_mask(rows: int, columns: int, size: int, shift: int, device: torch.device) -> Tensor:
    """Which tokens of a shifted image's windows lie apart in the image itself.

    The image was rolled up and to the left by ``shift`` tokens. The result, on ``device``, is
    (num_windows, area, area): ``HIDDEN`` between tokens that are apart, else 0. Remembered, so not
    to be written to.
    """

    def strip(windows: int) -> Tensor:
        """(windows, size) 1 where the roll brought in the other edge."""
        position = torch.arange(windows * size)
        return (position >= windows * size - shift).long().view(windows, size)

    part = strip(rows)[:, None, :, None] + 2 * strip(columns)[None, :, None, :]
    part = part.reshape(rows * columns, size * size)  # (num_windows, area), 0 to 3
    apart = part[:, :, None] != part[:, None]
    return to_device(device, torch.where(apart, HIDDEN, 0.0))[0]
