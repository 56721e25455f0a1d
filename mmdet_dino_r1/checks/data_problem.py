"""What a check of the data found, and how it is put into words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

EXAMPLES = 3  # shown of each problem


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data.

    Attributes:
        level: 'error': the run would fail or its numbers be worthless; 'warning': data is lost or
            something looks unintended; 'note'.
        kind: a name for programs: 'box_outside'.
        where: the annotation file.
        what: one sentence, with how many.
        remedy: what to do.
        count: how many boxes, images or classes are concerned.
        examples: the first of them.
    """

    level: str
    kind: str
    where: str
    what: str
    remedy: str = ''
    count: int = 1
    examples: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, level: str, kind: str, where: str, what: str, remedy: str, found: Iterable
    ) -> Problem:
        """A problem of everything found, which is counted and of which the first are examples.

        Args: as the class's attributes; ``found`` is what is wrong, one entry each.
        """
        found = list(found)
        return cls(level, kind, where, what, remedy, len(found), tuple(map(str, found[:EXAMPLES])))

    @property
    def is_error(self) -> bool:
        """Whether a run should not start."""
        return self.level == 'error'


error = partial(Problem.of, 'error')
warning = partial(Problem.of, 'warning')
note = partial(Problem.of, 'note')


def number(count: int | Sequence, one: str, many: str = '') -> str:
    """A count, or that of a sequence, in words.

    '1 box', '2 boxes'; without ``many`` an s is put after ``one``.
    """
    count = count if isinstance(count, int) else len(count)
    return f'{count} {one if count == 1 else many or one + "s"}'


def classes(names: Sequence) -> str:
    """How many: '1 class', '2 classes'."""
    return number(names, 'class', 'classes')


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names, at ``most`` so many, quoted."""
    return ', '.join(map(repr, names[:most])) + (', …' if len(names) > most else '')


def near_names(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """The names quoted; those that become examples with the known one that was probably meant."""
    by_folded = {str(other).strip().casefold(): other for other in known}
    said = []
    for name in names[:EXAMPLES]:
        folded = str(name).strip().casefold()
        near = [folded] if folded in by_folded else get_close_matches(folded, by_folded, 1, 0.7)
        said.append(repr(name) + (f' (there is {by_folded[near[0]]!r})' if near else ''))
    return said + [repr(name) for name in names[EXAMPLES:]]
