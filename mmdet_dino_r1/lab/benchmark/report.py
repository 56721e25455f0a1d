"""Figures as Markdown, and the ratios between models beside their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..markdown import NOTHING, markdown_table
from .contenders import DINO_R1, LATE, MMDET, VIS_GDINO
from .measure import PEAK, STEP

FEW, MANY = '80 classes, s', '1203 classes, s'  # of COCO; of LVIS, which mmdet takes in 31 chunks
# ratios that are to be reached: title, section, model and figure, those it is divided by, limit
TARGETS = (
    ('training step', 'training', (DINO_R1, STEP), (MMDET, STEP), '≤', 0.75),
    ('training step', 'training', (VIS_GDINO, STEP), (MMDET, STEP), '≤', 0.6),
    ('training step', 'training', (DINO_R1, STEP), (VIS_GDINO, STEP), '≤', 1.25),
    ('peak memory of training', 'memory', (DINO_R1, PEAK), (MMDET, PEAK), '≤', 0.8),
    ('one image, 80 classes', 'inference', (DINO_R1, FEW), (MMDET, FEW), '≤', 0.8),
    ('one image, 1203 classes', 'inference', (MMDET, MANY), (DINO_R1, MANY), '≥', 8.0),
    ('one image, 1203 classes', 'inference', (MMDET, MANY), (LATE, MANY), '≥', 25.0),
    ('one image, 1203 / 80 classes', 'inference', (LATE, MANY), (LATE, FEW), '≤', 1.15),
)


def assess_all(results: Mapping) -> list[dict]:
    """Rows on those of ``TARGETS`` that were measured in the sections."""
    rows = []
    for title, section, *pair, sign, limit in TARGETS:
        values = [results.get(section, {}).get(model, {}).get(figure) for model, figure in pair]
        if None not in values:
            ratio = values[0] / values[1]
            met = ratio <= limit if sign == '≤' else ratio >= limit
            models = ' / '.join(dict.fromkeys(model for model, _ in pair))
            row = dict(ratio=f'{title}, {models}', measured=ratio, target=f'{sign} {limit:g}')
            rows.append(row | dict(reached='met' if met else '**missed**'))
    return rows


def to_markdown(title: str, head: Mapping, sections: Mapping, failed: Sequence[str] = ()) -> str:
    """A report: title and head, what did not hold, and figures by heading, see :func:`told`."""
    parts = [f'# {title}', told(head)]
    if failed:
        parts.append('**Failed:**\n\n' + '\n'.join(f'- {line}' for line in failed))
    for name, figures in sections.items():
        parts += [f'## {name[:1].upper()}{name[1:]}', told(figures)]
    return '\n\n'.join(parts) + '\n'


def told(figures: object, level: int = 3) -> str:
    """Figures of any form.

    A list of dicts is a table with a line for each; a dict of flat dicts a table with a column
    for each; any other dict a list, what is not flat in it below headings; all else a word.
    """
    if _is_rows(figures):
        head = list(dict.fromkeys(key for row in figures for key in row))
        return markdown_table(head, [[_cell(row.get(key)) for key in head] for row in figures])
    if not isinstance(figures, Mapping):
        return _cell(figures)
    if figures and all(isinstance(of, Mapping) and _is_flat(of) for of in figures.values()):
        keys = dict.fromkeys(key for of in figures.values() for key in of)
        rows = [[key, *(_cell(of.get(key)) for of in figures.values())] for key in keys]
        return markdown_table(['', *figures], rows)
    nested = {key: of for key, of in figures.items() if isinstance(of, Mapping) or _is_rows(of)}
    flat = [f'- {key}: {_cell(of)}' for key, of in figures.items() if key not in nested]
    parts = ['\n'.join(flat)] if flat else []
    for key, of in nested.items():
        parts += [f'{"#" * level} {key}', told(of, level + 1)]
    return '\n\n'.join(parts)


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _is_flat(value: Mapping) -> bool:
    return not any(isinstance(of, Mapping) or _is_rows(of) for of in value.values())


def _cell(value: object) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f'{value:.0f}' if 1000 <= abs(value) < 1e6 else f'{value:.3g}'
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ', '.join(map(_cell, value)) or 'none'
    return str(value)
