"""A device that is none: tensors whose numbers lie on the CPU but that behave as if on a GPU.

What would go wrong on CUDA goes wrong here too, on a machine without one: an operator that is
given tensors of both kinds raises, and every copy and every wait for the device is counted, with
the line of the package that caused it. Speed, memory, CUDA's kernels and half precision are not
simulated.

- The device is called 'meta', since PyTorch without CUDA refuses 'cuda' in its own C++ code;
  ``is_cuda`` is True all the same.
- A copy to the device is a wait as well, as on CUDA, unless it is ``non_blocking`` and its source
  was pinned.
- :class:`Pretended` wraps a CPU tensor and hands every operator to it; a mode catches what makes
  tensors (``torch.zeros(..., device=)``). Some calls never reach PyTorch's dispatcher and are
  replaced while :func:`pretending` is in force: ``torch.tensor``, ``new_tensor``, ``tolist``,
  ``numpy``, ``pin_memory``, autocast, ``inference_mode`` (which cannot hold such tensors),
  ``fork_rng`` and mmcv's C++ operators (by their PyTorch forms, after asserting what the kernels
  expect).
- Indexing with Python lists is not caught: mmengine turns BGR to RGB so, hence preprocess on the
  CPU and move the result (:func:`to_device`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import mmengine.structures.instance_data as instance_data
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

# by name: mmcv.ops.nms as an attribute is the function
mmcv_attention = import_module('mmcv.ops.multi_scale_deform_attn')
mmcv_nms = import_module('mmcv.ops.nms')

DEVICE = torch.device('meta')
INDEXING = {'aten::index', 'aten::index_put_', 'aten::index_put', 'aten::_index_put_impl_'}
MAY_MIX = {'aten::_to_copy', 'aten::copy_', 'aten::set_'} | INDEXING
# their result, or its size, is known only when the device is done
READING = {
    f'aten::{name}'
    for name in (
        '_local_scalar_dense',
        'nonzero',
        '_unique2',
        'unique_consecutive',
        'unique_dim',
        'masked_select',
        'equal',
        'is_nonzero',
        'repeat_interleave',
    )
}


@dataclass
class Traffic:
    """What was counted, each as 'what, at file:line' to how often.

    Attributes:
        waits: the CPU waits until the device has done all that was asked of it.
        copies: transfers to the device, blocking (these are waits as well) or not.
    """

    waits: Counter = field(default_factory=Counter)
    copies: Counter = field(default_factory=Counter)

    def wait(self, what: str) -> None:
        self.waits[f'{what}, at {where()}'] += 1

    def copy(self, what: str, waits: bool = True) -> None:
        self.copies[f'{what}, at {where()}'] += 1
        if waits:
            self.wait(what)

    def check(self, waits: int, copies: int) -> None:
        """Fail, and say what they were, where there are more."""
        for name, counted, most in (('waits', self.waits, waits), ('copies', self.copies, copies)):
            listed = '\n'.join(f'{count} x {what}' for what, count in sorted(counted.items()))
            assert counted.total() <= most, f'{counted.total()} {name}, not {most}:\n{listed}'

    def clear(self) -> None:
        self.waits.clear()
        self.copies.clear()


TRAFFIC = Traffic()


def where(part: str = 'mmdet_dino_r1/') -> str:
    """The innermost line of the package that is being run, 'file:line'."""
    frame = sys._getframe(1)
    while frame is not None:
        if part in frame.f_code.co_filename:
            return f'{frame.f_code.co_filename.rpartition(part)[2]}:{frame.f_lineno}'
        frame = frame.f_back
    return 'a test'


class Pretended(Tensor):
    """A tensor on the pretended device; its numbers are ``host``, an ordinary one."""

    @staticmethod
    def __new__(cls, host: Tensor):
        return Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=DEVICE,
        )

    def __init__(self, host: Tensor) -> None:
        self.host = host

    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def new_tensor(self, data, dtype=None, device=None, requires_grad=False):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or DEVICE)

    def tolist(self):
        TRAFFIC.wait('tolist')
        return self.host.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError(f"can't convert a tensor on the device to numpy, at {where()}")

    __array__ = numpy

    def __repr__(self) -> str:
        return f'Pretended({self.host!r})'

    def __deepcopy__(self, memo):
        copy = Pretended(self.host.detach().clone())
        if getattr(self, '_is_param', False):
            copy = nn.Parameter(copy, self.requires_grad)
        memo[id(self)] = copy
        return copy

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


class PretendMode(TorchDispatchMode):
    """Catches operators without a tensor, which ``device=`` sends to the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def host_of(item: Any) -> Any:
    """The numbers of a tensor on the device; anything else as it is. Not counted."""
    return item.host if isinstance(item, Pretended) else item


def dispatch(func, args: tuple, kwargs: dict):
    """Run one operator on the numbers, after looking where its tensors lie."""
    name = func.name().split('.')[0]
    tensors = [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, Tensor)]
    on_device = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    # a CPU scalar may stand beside tensors of any device
    on_cpu = [t for t in tensors if not isinstance(t, Pretended) and t.dim() > 0]
    target = kwargs.get('device')
    to_device = bool(on_device) if target is None else torch.device(target) == DEVICE
    if on_device and on_cpu and name not in MAY_MIX:
        raise RuntimeError(f'{func.name()} mixes devices at {where()}')
    if on_device and name in READING:
        TRAFFIC.wait(name)
    if name in INDEXING:
        _count_indices(args[0], args[1], bool(on_device))
    elif name == 'aten::_to_copy' and to_device != isinstance(args[0], Pretended):
        _count_transfer(args[0], to_device, kwargs.get('non_blocking', False))
    elif name == 'aten::copy_' and isinstance(args[0], Pretended) != isinstance(args[1], Pretended):
        non_blocking = args[2] if len(args) > 2 else kwargs.get('non_blocking', False)
        _count_transfer(args[1], isinstance(args[0], Pretended), non_blocking)
    if target is not None and to_device:
        kwargs = dict(kwargs, device=torch.device('cpu'))
    out = func(*tree_map(host_of, args), **tree_map(host_of, kwargs))
    if func._schema.name.endswith('_') and tensors and out is host_of(args[0]):
        return args[0]  # in place
    if not to_device:
        return out
    return tree_map(lambda item: Pretended(item) if isinstance(item, Tensor) else item, out)


def _count_indices(indexed: Tensor, indices: list, any_on_device: bool) -> None:
    if any_on_device and not isinstance(indexed, Pretended):
        raise RuntimeError(f'a CPU tensor indexed from the device, at {where()}')
    for index in indices:
        if isinstance(index, Pretended) and index.dtype == torch.bool:
            TRAFFIC.wait('index by mask')
        elif index is not None and any_on_device and not isinstance(index, Pretended):
            TRAFFIC.copy('index from the CPU')


def _count_transfer(source: Tensor, to_device: bool, non_blocking: bool) -> None:
    if to_device:
        TRAFFIC.copy('to the device', not (non_blocking and getattr(source, 'is_pinned_', False)))
    else:
        TRAFFIC.wait('to the CPU')


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


def _suppress(nms):
    def suppress(boxes, scores, iou_threshold, offset):
        if isinstance(boxes, Pretended):
            TRAFFIC.wait('nms')  # how many are left
            return Pretended(nms(boxes.host, scores.host, iou_threshold, offset))
        return nms(boxes, scores, iou_threshold=iou_threshold, offset=offset)

    return suppress


class _AnyTensor(type):
    """mmengine asks whether an index is of PyTorch's legacy classes: of this one all are."""

    def __instancecheck__(cls, item: Any) -> bool:
        return isinstance(item, Tensor) and item.dtype in (torch.int64, torch.bool)


@contextmanager
def pretending(*pinning: Any) -> Iterator[Traffic]:
    """Within it the device exists, and what was counted so far is forgotten.

    Args:
        *pinning: what to patch besides, made by ``unittest.mock.patch``.
    """
    long_tensor = _AnyTensor('LongTensor', (), {})
    attention = SimpleNamespace(
        ms_deform_attn_forward=_attend, ms_deform_attn_backward=_attend_backward
    )
    nms = SimpleNamespace(nms=_suppress(mmcv_nms.ext_module.nms))
    with ExitStack() as stack:
        for patched in (
            patch.object(torch, 'tensor', _tensor_on(torch.tensor)),
            patch.object(torch, 'as_tensor', _tensor_on(torch.as_tensor)),
            patch.object(torch, 'autocast', _Autocast),
            patch.object(torch, 'inference_mode', _inference_mode),
            patch.object(torch.random, 'fork_rng', _fork),
            patch.object(Tensor, 'pin_memory', _pinned),
            patch.object(mmcv_attention, 'ext_module', attention),
            patch.object(mmcv_nms, 'ext_module', nms),
            patch.object(instance_data, 'IndexType', instance_data.IndexType | long_tensor),
            *pinning,
        ):
            stack.enter_context(patched)
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
