"""The tensors of ``pretended_device``: what each operator does, and what is counted of it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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
        'bincount',
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

    __torch_function__ = torch._C._disabled_torch_function_impl  # results stay what they are
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    data = property(lambda self: Pretended(self.host))  # the same numbers, without a graph

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


def each(change: Callable, item: Any) -> Any:
    """Lists, tuples and dicts with every other thing in them changed."""
    if isinstance(item, list | tuple):
        return type(item)([each(change, inner) for inner in item])
    if isinstance(item, dict):
        return {key: each(change, inner) for key, inner in item.items()}
    return change(item)


def dispatch(func, args: tuple, kwargs: dict):
    """Run one operator on the numbers, after looking where its tensors lie."""
    name = func.name().split('.')[0]
    items = []
    each(items.append, (args, kwargs))
    tensors = [item for item in items if isinstance(item, Tensor)]
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
    out = func(*each(host_of, args), **each(host_of, kwargs))
    if func._schema.name.endswith('_') and tensors and out is host_of(args[0]):
        return args[0]  # in place
    if not to_device:
        return out
    return each(lambda item: Pretended(item) if isinstance(item, Tensor) else item, out)


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
