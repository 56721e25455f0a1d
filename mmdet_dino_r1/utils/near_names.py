"""Names in messages: what was probably meant, and no more than can be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def near_names(name: str, known: Iterable[str], n: int = 3, cutoff: float = 0.5) -> list[str]:
    """The ``n`` known names most like a name, best first; ``cutoff``: 0 (anything) to 1 (equal)."""
    return get_close_matches(name, list(known), n=n, cutoff=cutoff)


def quote_with_near(name: str, known: Iterable[str], n: int = 3, cutoff: float = 0.5) -> str:
    """``'circel' (near: circle)``, or the quoted name alone; capitals and blanks do not count."""
    folded = {str(other).strip().casefold(): str(other) for other in known}
    near = near_names(str(name).strip().casefold(), folded, n, cutoff)
    return repr(name) + (f' (near: {", ".join(folded[one] for one in near)})' if near else '')


def some(names: Sequence, n: int = 10) -> str:
    """``a, b``, or the first ``n`` names and how many more there are."""
    more = f' and {len(names) - n} more' if len(names) > n else ''
    return ', '.join(map(str, names[:n])) + more
