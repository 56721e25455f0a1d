"""The only place that copies small tensors to the device, and several at once from it (ours).

A copy from ordinary memory lets the CPU wait until the device has done all that it was asked for,
and then the device waits for the CPU; a training step of two images once made some fifty of them.
Here all that is known at one time goes in a single copy that nobody waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps

import torch
import torch.nn.functional as F
from torch import Tensor

# of these devices PyTorch pins memory, so that the CPU need not wait for the copy
PINNED_FOR = ('cuda',)
_ALIGNMENT = 8  # bytes; a number of any type may begin at multiples of it


def to_device(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """All of them on the device, in one copy.

    Args:
        device: where they are wanted.
        *tensors: on the CPU, of any shapes and types.

    Returns:
        In the same order, of the same shapes and types; the tensors themselves for the CPU.
    """
    if device.type == 'cpu' or not tensors:
        return list(tensors)
    packed = _pack(tensors)
    if device.type in PINNED_FOR and not torch.compiler.is_compiling():  # which knows no pinning
        packed = packed.pin_memory()
    return _unpack(packed.to(device, non_blocking=True), tensors)


def to_cpu(*tensors: Tensor) -> list[Tensor]:
    """All of them on the CPU, which waits once for the device.

    Args:
        *tensors: on one device, of any shapes and types; without gradients.

    Returns:
        In the same order, of the same shapes and types; themselves where they are there already.
    """
    if not tensors or tensors[0].device.type == 'cpu':
        return list(tensors)
    return _unpack(_pack(tensors).cpu(), tensors)


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    """Their bytes one after the other, each beginning where a number of any type may."""
    parts = [tensor.reshape(-1).view(torch.uint8) for tensor in tensors]
    return torch.cat([F.pad(part, (0, -len(part) % _ALIGNMENT)) for part in parts])


def _unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    sizes = [tensor.nbytes + -tensor.nbytes % _ALIGNMENT for tensor in like]
    return [
        part[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for part, tensor in zip(packed.split(sizes), like, strict=True)
    ]


def remembered(maxsize: int) -> Callable:
    """Decorate what makes tensors that steps of the same sizes share; they are not written to.

    Args:
        maxsize: how many results are kept.
    """

    def decorate(make: Callable) -> Callable:
        make = torch.inference_mode(False)(make)  # whoever asks first: training will read it, too
        cached = lru_cache(maxsize)(make)

        @wraps(make)
        def get(*args):
            # what is made while a graph is traced or exported belongs to that graph alone
            return make(*args) if torch.compiler.is_compiling() else cached(*args)

        get.cache_clear, get.cache_info = cached.cache_clear, cached.cache_info
        return get

    return decorate


def box_scales(img_shapes: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Pixels per normalised unit; remembered, so not to be written to.

    Args:
        img_shapes: (h, w) of each image, unpadded.
        device: where they are wanted.

    Returns:
        (bs, 4) float (w, h, w, h).
    """
    return remembered_rows(tuple((w, h, w, h) for h, w, *_ in img_shapes), device)


@remembered(maxsize=256)
def remembered_rows(rows: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """(n, m) float from numbers; a step and its reference model ask for the same.

    Args:
        rows: n of m numbers each.
        device: where they are wanted.
    """
    return to_device(device, torch.tensor(rows, dtype=torch.float32))[0]
