"""The only place that copies small tensors to the device, and several at once from it (ours).

At a copy from ordinary memory the CPU waits until the device has done all that it was asked for.
Here all that is known at one time goes in a single copy that nobody waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .compat import is_compiling

# of these devices PyTorch pins memory, so that the CPU need not wait for the copy
PINNED_FOR = ('cuda',)
_ALIGNMENT = 8  # bytes; a number of any type may begin at multiples of it


def to_device(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """CPU tensors of any shapes and types on the device, in one copy; themselves for the CPU."""
    if device.type == 'cpu' or not tensors:
        return list(tensors)
    packed = _pack(tensors)
    if device.type in PINNED_FOR and not is_compiling():  # which knows no pinning
        packed = packed.pin_memory()
    return _unpack(packed.to(device, non_blocking=True), tensors)


def to_cpu(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one device, of any shapes, without gradients, on the CPU, which waits once."""
    if not tensors or tensors[0].device.type == 'cpu':
        return list(tensors)
    return _unpack(_pack(tensors).cpu(), tensors)


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    """Their bytes one after the other, each beginning where a number of any type may."""
    parts = [tensor.reshape(-1).view(torch.uint8) for tensor in tensors]
    missing = [-len(part) % _ALIGNMENT for part in parts]
    return torch.cat([F.pad(p, (0, n)) if n else p for p, n in zip(parts, missing, strict=True)])


def _unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    sizes = [tensor.nbytes + -tensor.nbytes % _ALIGNMENT for tensor in like]
    return [
        part[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for part, tensor in zip(packed.split(sizes), like, strict=True)
    ]


def remembered(maxsize: int) -> Callable:
    """Decorate what makes tensors that steps of the same sizes share; nobody may write to them.

    Lists among its arguments become tuples.
    """

    def decorate(make: Callable) -> Callable:
        make = torch.inference_mode(False)(make)  # whoever asks first: training will read it, too
        cached = lru_cache(maxsize)(make)

        @wraps(make)
        def get(*args):
            args = _as_tuples(args)
            # what is made while a graph is traced or exported belongs to that graph alone
            return make(*args) if is_compiling() else cached(*args)

        get.cache_clear, get.cache_info = cached.cache_clear, cached.cache_info
        return get

    return decorate


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def box_scales(img_shapes: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(bs, 4) float (w, h, w, h), from (h, w) of unpadded images; remembered: do not write."""
    return remembered_rows([(w, h, w, h) for h, w, *_ in img_shapes], device)


@remembered(maxsize=256)
def remembered_rows(rows: Sequence[Sequence[float]], device: torch.device) -> Tensor:
    """(n, m) float from numbers; a step and its reference model ask for the same."""
    return to_device(device, torch.tensor(rows, dtype=torch.float32))[0]
