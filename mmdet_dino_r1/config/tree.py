"""Walks through configs, reads their types, and finds all registries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import mmengine.registry
from mmengine.registry import Registry


def walk(node: object, key: str) -> Iterator[tuple[str, object]]:
    """Every value in a part of a config with its dotted key; first the part itself, at ``key``."""
    yield key, node
    children = node.items() if isinstance(node, Mapping) else ()
    for name, child in enumerate(node) if isinstance(node, (list, tuple)) else children:
        yield from walk(child, f'{key}.{name}' if key else str(name))


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
