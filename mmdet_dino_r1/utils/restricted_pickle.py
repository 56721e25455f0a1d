"""The pickle of a checkpoint, read by a machine that can make nothing else (ours).

A pickle is a program for a machine with a stack. Python's machine imports what is named, calls it
and sets attributes. This one knows only the instructions that ``torch.save`` writes (protocols 2
to 5), and looks at the exact type of all that they work on. Names are answered from ``NAMES``
alone: nothing is imported, or looked up on an object. The result is looked over at the end. It
holds values alone, no cycle, is no deeper than ``DEPTH`` and, with all that is shared written out,
no larger than ``VALUES``: so what walks, compares, copies or frees it later has bounds too.

Names: storage_of = function of (dtype, key, location, numel) that gives the bytes of a storage.
"""

from __future__ import annotations

import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from io import BufferedReader, BytesIO
from itertools import islice

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from .checkpoint_values import (
    NAMES,
    PLAIN,
    Name,
    Refused,
    Storage,
    check_keys,
    fill,
    is_size,
    need,
    set_of,
)

DEPTH = 100  # of containers in each other; real checkpoints have about ten
VALUES = 10_000_000
MADE = 1_000_000  # objects of NAMES: one takes up to 100 times its bytes in the file

_DICTS = (dict, OrderedDict, Counter, ConfigDict)
_CONTAINERS = (*_DICTS, list, tuple, set, frozenset)
_LEAVES = {*PLAIN, bytearray, complex, torch.Tensor, torch.nn.Parameter, torch.Size}
_LEAVES |= {torch.device, torch.dtype, np.ndarray, HistoryBuffer}
_UNKNOWN = Name()  # stands for all other names, so that the rest of them are heard of too


class Unpickler:
    """Reads one pickle from where a file is.

    Args:
        file: what reads bytes.
        size: how many it has at most.
        storage_of: see the module; without it, there are no tensors.
    """

    def __init__(
        self, file: BufferedReader | BytesIO, size: int, storage_of: Callable | None = None
    ) -> None:
        self.file, self.size, self.storage_of = file, size, storage_of
        self.stack, self.marks, self.memo = [], [], {}
        self.storages: dict[str, tuple] = {}
        self.unknown: set[str] = set()
        self.made = 0

    def load(self) -> object:
        """The object, checked.

        Raises:
            Refused: it is none that this machine makes; with all names that it may not ask for.
            Exception: of any class, where the instructions make no sense.
        """
        try:
            self._run()
        except Exception as error:
            if not self.unknown:
                raise
            raise Refused('', asked=frozenset(self.unknown)) from error
        if self.unknown:
            raise Refused('', asked=frozenset(self.unknown))
        need(len(self.stack) == 1 and not self.marks, 'pickle')
        result = self.stack[0]
        check_result(result)
        return result

    def _run(self) -> None:
        read, values, actions = self.file.read, _VALUES, _ACTIONS
        for _ in range(VALUES):
            code = read(1)
            if code in values:
                value = values[code](self)
                self.stack.append(value)
            elif code in actions:
                actions[code](self)
            elif code == pickle.STOP:
                return
            else:
                raise Refused(f'its pickle is cut short, or holds {code!r}, no instruction.')
        raise Refused(f'it holds more than {VALUES} values.')

    def _take(self, count: int) -> bytes:
        data = self.file.read(count) if count <= self.size else b''
        if len(data) != count:
            raise Refused('its pickle is cut short.')
        return data

    def _byte(self) -> int:
        return self._take(1)[0]

    def _number(self, width: int) -> int:
        return int.from_bytes(self._take(width), 'little')

    def _bytes(self, width: int) -> bytes:
        return self._take(self._number(width))

    def _text(self, width: int) -> str:
        # as pickle does: a path that is no UTF-8 has surrogates
        return self._bytes(width).decode('utf-8', 'surrogatepass')

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []
        if len(self.marks) > DEPTH:
            raise Refused(f'what it holds is nested deeper than {DEPTH}.')

    def _items(self) -> list:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _last(self, count: int) -> list:
        items = self.stack[-count:]
        need(len(items) == count, 'pickle')
        del self.stack[-count:]
        return items

    def _note(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _name_in_lines(self) -> object:
        lines = [self.file.readline(256).decode('ascii') for _ in range(2)]
        need(all(line.endswith('\n') for line in lines), 'name of a class')
        return self._name(*(line[:-1] for line in lines))

    def _name(self, module: str, name: str) -> object:
        need(type(module) is type(name) is str, 'name of a class')
        full = f'{module}.{name}'.replace('__builtin__.', 'builtins.')
        need(len(full) < 256 and full.isascii(), 'name of a class')
        need(full.replace('.', '').isidentifier(), 'name of a class')
        if full not in NAMES:
            self.unknown.add(full)
        return NAMES.get(full, _UNKNOWN)

    def _call(self) -> None:
        args, name = self.stack.pop(), self.stack[-1]
        if name is _UNKNOWN:
            return
        need(type(args) is tuple and type(name) is Name and name.make is not None, 'object')
        self.made += 1
        if self.made > MADE:
            raise Refused(f'it holds more than {MADE} objects.')
        self.stack[-1] = name.make(*args)

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if target is _UNKNOWN:
            return
        self.stack[-1] = filled = fill(target, state)
        if filled is not target:  # it was noted under a number just before its state came
            for index in list(islice(reversed(self.memo), 64)):
                if self.memo[index] is target:
                    self.memo[index] = filled

    def _set_items(self, items: list) -> None:
        target, keys, values = self.stack[-1], items[::2], items[1::2]
        if target is _UNKNOWN:
            return
        need(type(target) in (dict, OrderedDict) and len(keys) == len(values), 'dict')
        check_keys(keys)
        target.update(zip(keys, values, strict=True))

    def _append(self, items: list) -> None:
        target = self.stack[-1]
        if target is not _UNKNOWN:
            need(type(target) is list, 'list')
            target.extend(items)

    def _add(self, items: list) -> None:
        need(type(self.stack[-1]) is set, 'set')
        check_keys(items)
        self.stack[-1].update(items)

    def _storage(self) -> None:
        saved = self.stack[-1]
        need(type(saved) is tuple and len(saved) in (5, 6), 'reference to data')
        tag, name, key, location, numel = saved[:5]
        need(type(tag) is type(key) is type(location) is str, 'reference to data')
        need(tag == 'storage' and saved[5:] in ((), (None,)), 'reference to data')
        need(type(name) is Name and name.dtype is not None and is_size(numel), 'type of data')
        need(self.storage_of is not None, 'description')
        facts = name.dtype, key, location, numel
        if key not in self.storages:
            data, nbytes = None, numel * name.dtype.itemsize
            if not self.unknown:
                data = self.storage_of(*facts)
                need(data is None or data.nbytes() >= nbytes, 'data')
            self.storages[key] = facts, Storage(data, name.dtype, nbytes)
        need(self.storages[key][0] == facts, 'reference to data')
        self.stack[-1] = self.storages[key][1]


# Instructions that put one value onto the stack
_VALUES: dict[bytes, Callable[[Unpickler], object]] = {
    pickle.NONE: lambda self: None,
    pickle.NEWTRUE: lambda self: True,
    pickle.NEWFALSE: lambda self: False,
    pickle.BININT: lambda self: struct.unpack('<i', self._take(4))[0],
    pickle.BININT1: lambda self: self._byte(),
    pickle.BININT2: lambda self: self._number(2),
    pickle.LONG1: lambda self: int.from_bytes(self._bytes(1), 'little', signed=True),
    pickle.BINFLOAT: lambda self: struct.unpack('>d', self._take(8))[0],
    pickle.SHORT_BINSTRING: lambda self: self._text(1),  # by Python 2
    pickle.SHORT_BINUNICODE: lambda self: self._text(1),
    pickle.BINUNICODE: lambda self: self._text(4),
    pickle.BINUNICODE8: lambda self: self._text(8),
    pickle.SHORT_BINBYTES: lambda self: self._bytes(1),
    pickle.BINBYTES: lambda self: self._bytes(4),
    pickle.BINBYTES8: lambda self: self._bytes(8),
    pickle.BYTEARRAY8: lambda self: bytearray(self._bytes(8)),
    pickle.EMPTY_TUPLE: lambda self: (),
    pickle.EMPTY_LIST: lambda self: [],
    pickle.EMPTY_DICT: lambda self: {},
    pickle.EMPTY_SET: lambda self: set(),
    pickle.TUPLE: lambda self: tuple(self._items()),
    pickle.TUPLE1: lambda self: tuple(self._last(1)),
    pickle.TUPLE2: lambda self: tuple(self._last(2)),
    pickle.TUPLE3: lambda self: tuple(self._last(3)),
    pickle.FROZENSET: lambda self: set_of(frozenset, self._items()),
    pickle.BINGET: lambda self: self.memo[self._byte()],
    pickle.LONG_BINGET: lambda self: self.memo[self._number(4)],
    pickle.GLOBAL: Unpickler._name_in_lines,
    pickle.STACK_GLOBAL: lambda self: self._name(*self._last(2)),
}
# and those that do something to what is there
_ACTIONS: dict[bytes, Callable[[Unpickler], None]] = {
    pickle.PROTO: lambda self: need(2 <= self._byte() <= 5, 'protocol'),
    pickle.FRAME: lambda self: self._take(8),
    pickle.MARK: Unpickler._mark,
    pickle.BINPUT: lambda self: self._note(self._byte()),
    pickle.LONG_BINPUT: lambda self: self._note(self._number(4)),
    pickle.MEMOIZE: lambda self: self._note(len(self.memo)),
    pickle.APPEND: lambda self: self._append(self._last(1)),
    pickle.APPENDS: lambda self: self._append(self._items()),
    pickle.SETITEM: lambda self: self._set_items(self._last(2)),
    pickle.SETITEMS: lambda self: self._set_items(self._items()),
    pickle.ADDITEMS: lambda self: self._add(self._items()),
    pickle.REDUCE: Unpickler._call,
    pickle.NEWOBJ: Unpickler._call,
    pickle.BUILD: Unpickler._build,
    pickle.BINPERSID: Unpickler._storage,
}


def check_result(root: object) -> None:
    """Look over what was made; without recursion, whatever it is.

    Raises:
        Refused: it contains itself or what is no value, is too deep, or too large written out.
    """
    seen: dict[int, tuple[int, int]] = {}  # depth and size of each container that is done
    begun, containers = set(), [[root]]
    while containers:
        this = containers[-1]
        if id(this) in seen:
            containers.pop()
            continue
        values = _inside(this)
        inner = [value for value in values if type(value) in _CONTAINERS and _inside(value)]
        if id(this) not in begun:
            begun.add(id(this))
            others = {type(value) for value in values} - _LEAVES - set(_CONTAINERS)
            need(all(issubclass(kind, (np.generic, np.dtype)) for kind in others), 'content')
            waiting = [value for value in inner if id(value) not in seen]
            if any(id(value) in begun for value in waiting):
                raise Refused('what it holds contains itself.')
            containers += waiting
            if waiting and len(begun) - len(seen) <= DEPTH:  # so many are under way
                continue
        below = [seen.get(id(value), (DEPTH, 0)) for value in inner]
        depth = 1 + max((depth for depth, _ in below), default=0)
        size = len(values) + 1 + sum(size for _, size in below)
        if depth > DEPTH or size > VALUES:
            raise Refused(f'what it holds is nested deeper than {DEPTH}, or larger than {VALUES}.')
        seen[id(this)] = depth, size
        containers.pop()


def _inside(container) -> list:
    """The values in a container; keys are plain."""
    if type(container) not in _DICTS:
        return list(container)
    values = list(dict.values(container))  # not ConfigDict's own, which may build what it holds
    metadata = vars(container).get('_metadata') if type(container) is OrderedDict else None
    return values if metadata is None else [*values, metadata]
