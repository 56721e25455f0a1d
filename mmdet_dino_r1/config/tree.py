"""Walks through configs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def walk(node: object, key: str) -> Iterator[tuple[str, object]]:
    """Every value in a part of a config with its dotted key; first the part itself, at ``key``."""
    yield key, node
    children = node.items() if isinstance(node, Mapping) else ()
    for name, child in enumerate(node) if isinstance(node, (list, tuple)) else children:
        yield from walk(child, f'{key}.{name}' if key else str(name))
