"""What the check of a GPU saw, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .report import NOTHING, assess_all, table, write_sections, write_targets
from .stage_runner import failures

TITLES = {
    'agreement': 'Versions, CPU against GPU, half precision',
    'steps': 'Steps of the whole model',
    'speed': "Beside mmdet's Grounding DINO",
    'training': 'A training, killed and resumed; pairs of runs at equal steps',
}
_SECTIONS = ('bfloat16', 'float32')  # figures that hold sections of the benchmark


def to_markdown(report: Mapping) -> str:
    """The report as text.

    Args:
        report: ``settings`` and ``stages``, the results by name.
    """
    parts = ['# GPU check', _listed(report['settings'])]
    if failed := failures(report['stages']):
        parts.append('**Failed:**\n\n' + '\n'.join(f'- {line}' for line in failed))
    for name, of in report['stages'].items():
        took = f'; its parts: {_cell(of["parts"])}' if of['parts'] else ''
        parts += [f'## {TITLES[name]}', f'{name}: {of["state"]}, {of["seconds"]} s{took}.']
        for title, figures in of['figures'].items():
            parts.append(f'### {"In " * (title in _SECTIONS)}{title}')
            parts += _sections(figures) if title in _SECTIONS else [told(figures)]
    return '\n\n'.join(parts) + '\n'


def _sections(figures: Mapping) -> list[str]:
    targets = assess_all(figures)
    return [*([write_targets(targets)] if targets else []), *write_sections(figures, level=4)]


def told(value: object) -> str:
    """Figures of any form: a list of rows is a table, a dict a list, anything else a word.

    Args:
        value: whatever JSON can hold.
    """
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        head = list(value[0])
        return table(head, [[_cell(row.get(key)) for key in head] for row in value])
    if isinstance(value, Mapping):
        inner = [f'{key}:\n\n{told(of)}' for key, of in value.items() if _is_table(of)]
        flat = {key: of for key, of in value.items() if not _is_table(of)}
        return '\n\n'.join([*([_listed(flat)] if flat else []), *inner])
    return _cell(value)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _listed(value: Mapping) -> str:
    return '\n'.join(f'- {key}: {_cell(of)}' for key, of in value.items())


def _cell(value: object) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f'{value:.4g}'
    if isinstance(value, Mapping):
        return ', '.join(f'{key} {_cell(of)}' for key, of in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ', '.join(map(_cell, value)) or 'none'
    return str(value)
