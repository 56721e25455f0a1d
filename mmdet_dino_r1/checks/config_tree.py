"""Reads types in configs, and walks through registries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import mmengine.registry
from mmengine.registry import Registry


def type_name(node: Mapping | None) -> str | None:
    """The name of a dict's ``type``, without scope, be it a class or a text; None without one."""
    kind = (node or {}).get('type')
    name = getattr(kind, '__name__', kind)
    return None if name is None else name.rpartition('.')[2]


def described(key: str, node: Mapping) -> str:
    """A dotted key with the type of the node that it leads to: 'val_evaluator (CocoMetric)'."""
    kind = type_name(node)
    return f'{key} ({kind})' if kind else key


def registries() -> Iterator[Registry]:
    """All of mmengine's and their children."""
    waiting = [root for root in vars(mmengine.registry).values() if isinstance(root, Registry)]
    while waiting:
        yield (registry := waiting.pop())
        waiting += registry.children.values()
