"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

NOTHING = '–'  # in a cell


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table from the texts of its columns' heads and of its rows, without a line break after."""
    lines = [[text.replace('|', r'\|') for text in line] for line in (head, *rows)]
    lines.insert(1, ['---'] * len(head))
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
