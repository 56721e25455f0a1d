"""What the pickle of a checkpoint may ask for, and how it is made: by us, of checked parts (ours).

A file gets a ``Name`` for the name of a class or function. ``make`` stands in for what the name
would call in Python: it takes the file's arguments, looks at their exact types and sizes, and
refuses what ``torch.save`` would not write. No constructor or ``__setstate__`` of a foreign class
sees anything from the file that was not looked at.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

EXPANDED = 1 << 26  # elements of a tensor that repeats those of a smaller storage (stride 0)
PLAIN = (str, int, float, bool, type(None), bytes)


class Refused(ValueError):
    """A file that is not read.

    Args:
        reason: why, as a sentence on "it".
        remedy: what to do.
        asked: names that it may not ask for, where those are the reason.
    """

    def __init__(self, reason: str, remedy: str = '', asked: frozenset[str] = frozenset()) -> None:
        super().__init__(reason)
        self.remedy, self.asked = remedy, asked


@dataclass(frozen=True)
class Name:
    """See the module; without ``make`` a name may be mentioned alone."""

    make: Callable | None = None
    dtype: torch.dtype | None = None  # of a class of storages


@dataclass(frozen=True)
class Storage:
    """Bytes of tensors; None where nothing is wanted of a file but what it asks for."""

    data: torch.UntypedStorage | None
    dtype: torch.dtype
    nbytes: int


class Array:
    """A NumPy array that was asked for and of which the content comes later."""


def need(condition: bool, what: str) -> None:
    """Go on where ``what`` the file holds is as it should be.

    Raises:
        Refused: it is not.
    """
    if not condition:
        raise Refused(f'its {what} is not as torch.save writes it.')


def is_size(value: object) -> bool:
    """Whether this is an int, 0 or more, of 63 bits."""
    return type(value) is int and 0 <= value < 1 << 63


def check_keys(keys: list) -> None:
    """Refuse what is no plain value or flat tuple of them: the hash of a deep one overflows."""
    for key in keys:
        if type(key) is tuple:
            need(all(type(one) in PLAIN for one in key), 'key of a dict')
        # Larger ints can be chosen such that all have one hash, and a dict of them takes for ever.
        elif type(key) not in PLAIN or (type(key) is int and not -(1 << 60) < key < 1 << 60):
            need(isinstance(key, np.generic), 'key of a dict')


def set_of(kind: type, items: list | tuple = ()) -> set | frozenset:
    """A set of plain values."""
    need(type(items) in (list, tuple), kind.__name__)
    check_keys(items)
    return kind(items)


def _is_shape(value: object) -> bool:
    """Whether this is a tuple of at most 64 sizes that fit into 63 bits."""
    return type(value) in (tuple, torch.Size) and len(value) <= 64 and all(map(is_size, value))


def tensor_of(storage, offset, size, stride, requires_grad=False, hooks=None, *more):
    """``torch._utils._rebuild_tensor_v2``, with no element outside of the storage.

    Raises:
        Refused: one would be, or the arguments are none of such a tensor.
    """
    need(type(storage) is Storage and is_size(offset), 'tensor')
    dtype, metadata = storage.dtype, more
    if more and type(more[0]) is torch.dtype:  # _v3
        dtype, *metadata = more
    need(_is_shape(size) and _is_shape(stride) and len(size) == len(stride), 'size of a tensor')
    need(type(requires_grad) is bool and not hooks, 'tensor')
    if any(one is not None and (type(one) is not dict or one) for one in metadata):
        raise Refused('a tensor in it is conjugate by a flag.', 'Save a copy of it (clone()).')
    held, numel = storage.nbytes // dtype.itemsize, math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if (numel and last >= held) or (not numel and offset > held):
        raise Refused('a tensor in it reaches beyond its data.')
    if max(numel, math.prod(n for n in size if n)) > max(held, EXPANDED):
        raise Refused('a tensor in it is far larger than its data.')
    tensor = torch.empty(0, dtype=dtype, device=getattr(storage.data, 'device', None))
    if storage.data is not None:
        tensor.set_(storage.data, offset, tuple(size), tuple(stride))
    return tensor.requires_grad_() if requires_grad else tensor


def _parameter_of(data, requires_grad=True, hooks=None):
    """``torch._utils._rebuild_parameter``."""
    need(type(data) is torch.Tensor and type(requires_grad) is bool and not hooks, 'parameter')
    return torch.nn.Parameter(data, requires_grad)


def _dict_of(kind: type) -> Callable:
    """Maker of another class of dicts from a dict, whose keys were looked at already.

    ``ConfigDict`` itself would copy all that is in it, once for each time that it is mentioned.
    """

    def make(content=None):
        made = kind()
        need(content is None or type(content) is dict, kind.__name__)
        for key, value in (content or {}).items():
            dict.__setitem__(made, key, value)
        return made

    return make


def _called(kind: type, *argument_types: tuple) -> Callable:
    """Maker of a plain value, called with arguments of exactly these types."""

    def make(*args):
        need(tuple(map(type, args)) in argument_types, kind.__name__)
        return kind(*args)

    return make


def _encoded(text, encoding):
    """Bytes as protocol 2 writes them: as text."""
    need(type(text) is str and type(encoding) is str and encoding == 'latin1', 'text')
    return text.encode('latin1')


def _size_of(sizes):
    """``torch.Size``."""
    need(_is_shape(sizes), 'torch.Size')
    return torch.Size(sizes)


def _numpy_type(name, *flags):
    """``numpy.dtype`` of a number."""
    need(type(name) is str and len(flags) <= 2 and name in _NUMBERS, 'numpy.dtype')
    return np.dtype(name)


def _numpy_array(data, dtype, shape, order):
    """A writable array of exactly these bytes."""
    need(isinstance(dtype, np.dtype) and type(data) in (bytes, bytearray), 'array')
    need(_is_shape(shape) and order in ('C', 'F'), 'array')
    need(math.prod(shape) * dtype.itemsize == len(data), 'array')
    return np.ndarray(shape, dtype, data, order=order).copy(order)


def _numpy_scalar(dtype, data):
    """A NumPy number."""
    return _numpy_array(data, dtype, (1,), 'C')[0]


def _method_of(owner, name):
    """``getattr``, which a HistoryBuffer asks for the four statistics that all of them have."""
    need(owner is NAMES[f'{_HISTORY}.HistoryBuffer'], 'use of getattr')
    need(type(name) is str and f'{_HISTORY}.HistoryBuffer.{name}' in NAMES, 'use of getattr')
    return NAMES[f'{_HISTORY}.HistoryBuffer.{name}']


def fill(target, state):
    """BUILD: what becomes of ``target`` with the state that the file gives it."""
    kind = type(target)
    if kind is OrderedDict:  # a state_dict's versions of modules
        need(type(state) is dict and state.keys() == {'_metadata'}, 'OrderedDict')
        need(type(state['_metadata']) is OrderedDict, 'OrderedDict')
        target._metadata = state['_metadata']
    elif isinstance(target, np.dtype):
        need(type(state) is tuple and all(one is None for one in state[2:5]), 'numpy.dtype')
        need(type(state[1]) is str and state[1] in '<|=', 'byte order (little-endian alone)')
    elif kind is Array:
        _, shape, dtype, is_fortran, data = state
        return _numpy_array(data, dtype, shape, 'F' if is_fortran is True else 'C')
    elif kind is torch.nn.Parameter:  # as PyTorch wrote it before 0.4
        need(type(state) is tuple and type(state[0]) is bool and not state[-1], 'parameter')
        target.requires_grad_(state[0])
    else:
        need(kind is HistoryBuffer and type(state) is dict, 'object')
        log, count, most = (state.get(key) for key in _HISTORY_FIELDS)
        methods = state.get('statistics_methods') or {}
        need(state.keys() - {'statistics_methods'} == set(_HISTORY_FIELDS), 'HistoryBuffer')
        need(type(log) is type(count) is np.ndarray and type(most) is int, 'HistoryBuffer')
        need(log.ndim == 1 and log.shape == count.shape and most > 0, 'HistoryBuffer')
        need(type(methods) is dict and set(methods) <= set(_STATISTICS), 'HistoryBuffer')
        target._log_history, target._count_history, target.max_length = log, count, most
    return target


_NUMBERS = ('b1', *(f'{kind}{n}' for kind in 'iu' for n in (1, 2, 4, 8)))
_NUMBERS += ('f2', 'f4', 'f8', 'c8', 'c16')
_HISTORY = 'mmengine.logging.history_buffer'
_HISTORY_FIELDS = '_log_history', '_count_history', 'max_length'
_STATISTICS = 'min', 'max', 'current', 'mean'
_STORAGES = dict(Float='float32', Double='float64', Half='float16', BFloat16='bfloat16')
_STORAGES |= dict(Long='int64', Int='int32', Short='int16', Char='int8', Byte='uint8', Bool='bool')
_STORAGES |= dict(ComplexFloat='complex64', ComplexDouble='complex128', Untyped='uint8')

NAMES: dict[str, object] = {
    'collections.OrderedDict': Name(_called(OrderedDict, ())),
    'collections.Counter': Name(_dict_of(Counter)),
    'mmengine.config.config.ConfigDict': Name(_dict_of(ConfigDict)),
    **{f'torch._utils._rebuild_{name}': Name(tensor_of) for name in ('tensor_v2', 'tensor_v3')},
    'torch._utils._rebuild_tensor': Name(tensor_of),
    'torch._utils._rebuild_parameter': Name(_parameter_of),
    'torch.nn.parameter.Parameter': Name(_parameter_of),
    'torch.Size': Name(_size_of),
    'torch.device': Name(_called(torch.device, (str,), (str, int))),
    '_codecs.encode': Name(_encoded),
    'builtins.bytes': Name(_called(bytes, ())),
    'builtins.bytearray': Name(_called(bytearray, (), (bytes,), (bytearray,))),
    'builtins.complex': Name(_called(complex, (float, float))),
    **{f'builtins.{kind.__name__}': Name(partial(set_of, kind)) for kind in (set, frozenset)},
    'builtins.getattr': Name(_method_of),
    f'{_HISTORY}.HistoryBuffer': Name(_called(HistoryBuffer, ())),
    **{f'{_HISTORY}.HistoryBuffer.{name}': Name() for name in _STATISTICS},
    'numpy.ndarray': Name(),
    'numpy.dtype': Name(_numpy_type),
    # numpy 2 renamed the module; a file names that of the numpy that wrote it
    **{f'numpy.{core}.multiarray.scalar': Name(_numpy_scalar) for core in ('core', '_core')},
    **{f'numpy.{core}.numeric._frombuffer': Name(_numpy_array) for core in ('core', '_core')},
    **{
        f'numpy.{core}.multiarray._reconstruct': Name(lambda *_: Array())
        for core in ('core', '_core')
    },
    **{
        f'{module}.{name}Storage': Name(dtype=getattr(torch, dtype))
        for name, dtype in _STORAGES.items()
        for module in ('torch', 'torch.storage')
    },
    **{
        str(dtype): dtype
        for dtype in vars(torch).values()
        if type(dtype) is torch.dtype and not str(dtype).startswith('torch.q')
    },
}
