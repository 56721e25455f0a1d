"""A device that is none: tensors whose numbers lie on the CPU but that behave as if on a GPU.

What would go wrong on CUDA goes wrong here too, on a machine without one: an operator that is
given tensors of both kinds raises, and every copy and every wait for the device is counted, with
the line of the package that caused it. Speed, memory, CUDA's kernels and half precision are not
simulated.

- The device is called 'meta', since PyTorch without CUDA refuses 'cuda' in its own C++ code;
  ``is_cuda`` is True all the same.
- A copy to the device is a wait as well, as on CUDA, unless it is ``non_blocking`` and its source
  was pinned.
- :class:`Pretended` (``pretended_tensor.py``) wraps a CPU tensor and hands every operator to it;
  a mode catches what makes tensors (``torch.zeros(..., device=)``). Some calls never reach
  PyTorch's dispatcher and are replaced while :func:`pretending` is in force: ``torch.tensor``,
  ``new_tensor``, ``tolist``, ``numpy``, ``pin_memory``, autocast, ``inference_mode`` (which cannot
  hold such tensors), ``fork_rng`` and mmcv's deformable attention (by its PyTorch form, after
  asserting what the kernel expects).
- Indexing with Python lists is not caught: mmengine turns BGR to RGB so, hence preprocess on the
  CPU and move the result (:func:`to_device`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import mmengine.structures.instance_data as instance_data
import torch
from mmengine.structures import BaseDataElement
from pretended_tensor import DEVICE, TRAFFIC, Pretended, PretendMode, Traffic, host_of
from torch import Tensor, nn

from mmdet_dino_r1.models.backbones.swin import shift_mask
from mmdet_dino_r1.models.layers import image_padding, token_grid
from mmdet_dino_r1.utils import device_copy

# by name: as attributes of their packages these are functions
mmcv_attention = import_module('mmcv.ops.multi_scale_deform_attn')
REMEMBERED = (
    token_grid,
    image_padding,
    device_copy.remembered_rows,
    shift_mask,
)

__all__ = ['DEVICE', 'Pretended', 'Traffic', 'host_of', 'pretending', 'to_device']

# --- what never reaches the dispatcher ----------------------------------------------------


def _tensor_on(make):
    def tensor(data, *, dtype=None, device=None, **kwargs):
        if device is None or torch.device(device) != DEVICE:
            return make(host_of(data), dtype=dtype, device=device, **kwargs)
        if not isinstance(data, Pretended):
            TRAFFIC.copy('torch.tensor')
        return Pretended(make(host_of(data), dtype=dtype, **kwargs))

    return tensor


def _pinned(tensor: Tensor, *args) -> Tensor:
    pinned = tensor.clone()
    pinned.is_pinned_ = True
    return pinned


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args, **kwargs) -> None:
        super().__init__('cpu' if device_type == DEVICE.type else device_type, *args, **kwargs)


def _inference_mode(mode: bool = True):
    return torch.set_grad_enabled(not mode)


_fork_rng = torch.random.fork_rng


def _fork(devices=(), *args, **kwargs):
    assert all(torch.device(device) == DEVICE for device in devices)
    return _fork_rng([], *args, **kwargs)  # its numbers come from the CPU's generator


def _check_kernel(value, shapes, starts, positions, weights) -> list[Tensor]:
    """What mmcv's CUDA kernel expects without saying so; returns the numbers."""
    tensors = (value, shapes, starts, positions, weights)
    assert all(isinstance(tensor, Pretended) and tensor.is_contiguous() for tensor in tensors)
    assert {tensor.dtype for tensor in (value, positions, weights)} == {torch.float32}
    assert shapes.dtype == starts.dtype == torch.int64
    hosts = [tensor.host for tensor in tensors]
    assert hosts[1].prod(1).cumsum(0).tolist() == [*hosts[2].tolist()[1:], value.shape[1]]
    return hosts


def _attend(value, shapes, starts, positions, weights, im2col_step):
    value, shapes, _, positions, weights = _check_kernel(value, shapes, starts, positions, weights)
    attend = mmcv_attention.multi_scale_deformable_attn_pytorch
    return Pretended(attend(value, shapes, positions, weights))


def _attend_backward(value, shapes, starts, positions, weights, grad, *into, im2col_step):
    value, shapes, _, positions, weights = _check_kernel(value, shapes, starts, positions, weights)
    inputs = [tensor.detach().requires_grad_() for tensor in (value, positions, weights)]
    with torch.enable_grad():
        out = mmcv_attention.multi_scale_deformable_attn_pytorch(inputs[0], shapes, *inputs[1:])
    for target, gradient in zip(into, torch.autograd.grad(out, inputs, grad.host), strict=True):
        target.host.copy_(gradient)


class _AnyTensor(type):
    """mmengine asks whether an index is of PyTorch's legacy classes: of this one all are."""

    def __instancecheck__(cls, item: Any) -> bool:
        return isinstance(item, Tensor) and item.dtype in (torch.int64, torch.bool)


@contextmanager
def pretending() -> Iterator[Traffic]:
    """Within it the device exists; counting begins anew, and nothing lies on the device yet."""
    long_tensor = _AnyTensor('LongTensor', (), {})
    attention = SimpleNamespace(
        ms_deform_attn_forward=_attend, ms_deform_attn_backward=_attend_backward
    )
    with ExitStack() as stack:
        for patched in (
            patch.object(torch, 'tensor', _tensor_on(torch.tensor)),
            patch.object(torch, 'as_tensor', _tensor_on(torch.as_tensor)),
            patch.object(torch, 'autocast', _Autocast),
            patch.object(torch, 'inference_mode', _inference_mode),
            patch.object(torch.random, 'fork_rng', _fork),
            patch.object(Tensor, 'pin_memory', _pinned),
            patch.object(mmcv_attention, 'ext_module', attention),
            patch.object(instance_data, 'IndexType', instance_data.IndexType | long_tensor),
            patch.object(device_copy, 'PINNED_FOR', ('cuda', DEVICE.type)),
        ):
            stack.enter_context(patched)
        for remembered in REMEMBERED:
            remembered.cache_clear()
            stack.callback(remembered.cache_clear)
        stack.enter_context(PretendMode())
        TRAFFIC.clear()
        yield TRAFFIC


def to_device(item: Any) -> Any:
    """Tensors, data samples, lists, dicts and modules (in place) moved; not counted."""
    if isinstance(item, Pretended):
        return item
    if isinstance(item, Tensor):
        return Pretended(item)
    if isinstance(item, list | tuple):
        return type(item)(map(to_device, item))
    if isinstance(item, dict):
        return {key: to_device(value) for key, value in item.items()}
    if isinstance(item, BaseDataElement):
        moved = item.new()
        for key, value in item.items():
            moved.set_data({key: to_device(value)})
        return moved
    if isinstance(item, nn.Module):
        for module in item.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    moved = Pretended(parameter.detach())
                    module._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
            for name, buffer in module._buffers.items():
                module._buffers[name] = buffer if buffer is None else Pretended(buffer)
    return item
