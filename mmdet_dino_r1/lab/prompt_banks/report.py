"""A prompt bank in plain values, in text and in its contact sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...structures.prompt_bank import PromptBank, is_tuned
from ...utils.near_names import some
from ..figure import write_image
from .contact_sheet import contact_sheet
from .statistics import BankStatistics

SHEET_AT_MOST = 40  # rows of the contact sheet
_MEANS_ONLY = (
    'Spread and outliers are unknown: the bank keeps the means only (it was built with '
    '--means-only, or merged with such a bank).'
)


def describe(bank: PromptBank, statistics: BankStatistics) -> dict:
    """A bank and its statistics in plain JSON values; what is unknown is None."""
    outliers, names, classes = statistics.outliers, bank.class_names, []
    for row in statistics.by_confusability:
        nearest = int(statistics.nearest[row])
        classes.append(
            dict(
                name=names[row],
                id=bank.class_ids[row] if bank.class_ids else None,
                exemplars=None if statistics.counts is None else int(statistics.counts[row]),
                spread=None if statistics.spread is None else _number(statistics.spread[row]),
                nearest_class=names[nearest] if nearest >= 0 else None,
                similarity=_number(statistics.nearest_similarity[row]),
            )
        )
    return dict(
        provenance=bank.provenance,
        dim=bank.dim,
        classes=classes,
        outliers=None if outliers is None else [asdict(outlier) for outlier in outliers],
    )


def format_description(described: dict, top: int = 50) -> str:
    """What :func:`describe` gives as text, at most so many classes and outliers; 0 for all."""
    provenance, classes = described['provenance'], described['classes']
    lines = [f'{len(classes)} classes, width {described["dim"]}']
    if is_tuned(provenance):
        lines[0] += ', tuned: rows need not be the means of their exemplars'
    for key, value in provenance.items():
        if key == 'counts' or value in ({}, []):  # the counts stand in the table
            continue
        if key == 'merged':
            parts = [f'{part.get("ann_file", "?")} ({len(part["classes"])})' for part in value]
            value = f'{len(parts)} banks: ' + ', '.join(parts)
        text = str(value)
        lines.append(f'  {key:<16} {text if len(text) <= 110 else text[:109] + "…"}')
    return '\n'.join([*lines, '', *_table(classes, top), '', *_outliers(described, top), ''])


def _table(classes: Sequence[dict], top: int) -> list[str]:
    width = max(len(name) for name in ('nearest class', *(entry['name'] for entry in classes)))
    form = f'{{:<{width}}} {{:>6}} {{:>9}} {{:>6}}  {{:<{width}}} {{:>10}}'
    lines = [form.format('class', 'id', 'exemplars', 'spread', 'nearest class', 'similarity')]
    shown = classes[:top] if top else classes
    lines += [form.format(*map(_text, entry.values())) for entry in shown]
    if len(shown) < len(classes):
        lines.append(f'… and {len(classes) - len(shown)} less confusable ones (--top 0 shows all)')
    return lines


def _outliers(described: dict, top: int) -> list[str]:
    outliers = described['outliers']
    if not outliers:
        return [_MEANS_ONLY if outliers is None else 'No outliers.']
    far = sum(outlier['far'] for outlier in outliers)
    nearer = sum(outlier['nearer_class'] is not None for outlier in outliers)
    told = f'{far} far from the rest of their class, {nearer} nearer to another class'
    lines = [f'{len(outliers)} outliers: {told}']
    shown = outliers[:top] if top else outliers
    for outlier in shown:
        boxes = [' '.join(f'{value:.0f}' for value in box) for box in outlier['boxes']]
        text = '{class_name}: image {image_id} ({file_name})'.format(**outlier)
        text += f', box{"es" * (len(boxes) > 1)} {some(boxes)}'
        text += f', distance {outlier["distance"]:.2f} (usual {outlier["usual"]:.2f})'
        text += ', far' * outlier['far']
        if outlier['nearer_class'] is not None:
            text += f', nearer to {outlier["nearer_class"]!r}'
        lines.append(f'  {text}')
    if len(shown) < len(outliers):
        lines.append(f'  … and {len(outliers) - len(shown)} more (--top 0 shows all)')
    return lines


def _number(value) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def _text(value: object) -> str:
    if value is None:
        return '–'
    return f'{value:.2f}' if isinstance(value, float) else str(value)


def write_contact_sheet(
    bank: PromptBank, statistics: BankStatistics, images: Path | None, out: Path
) -> tuple[list[Path], list[str]]:
    """Write the contact sheet; the files written, and one line on all that could not be drawn.

    The images lie in the folder given (FileNotFoundError: it is none), else in the bank's own.
    """
    if images is not None and not images.is_dir():
        raise FileNotFoundError(f'--images {images} is not a folder.')
    if bank.exemplars is None:
        return [], ['contact sheet: the bank does not say which boxes it was made of.']
    folders = image_folders(bank) if images is None else [str(images)] * len(bank)
    if not any(folder and Path(folder).is_dir() for folder in folders):
        named = ', '.join(sorted({folder for folder in folders if folder})) or 'none'
        return [], [f'contact sheet: no image folder (named: {named}); give --images DIR.']
    labels, file_names = bank.exemplars.labels.tolist(), bank.exemplars.file_names
    first = [boxes[0] for boxes in bank.exemplars.members]
    paths = [Path(folders[labels[box]] or '', file_names[box]) for box in first]
    rows = rows_to_show(bank, statistics)
    written = [write_image(out, contact_sheet(bank, paths, statistics, rows))]
    no_room = f'{len(bank) - len(rows)} classes of the contact sheet, without room on a sheet.'
    return written, [no_room] * (len(rows) < len(bank))


def image_folders(bank: PromptBank) -> list[str | None]:
    """The image folder that the bank names for each class; merged banks may have several."""
    common = bank.provenance.get('img_prefix')
    folder_of = {
        name: part.get('img_prefix')
        for part in bank.provenance.get('merged', ())
        for name in part['classes']
    }
    return [common if common is not None else folder_of.get(name) for name in bank.class_names]


def rows_to_show(bank: PromptBank, statistics: BankStatistics) -> list[int]:
    """All classes in order; of too many those with outliers first, then the confusable ones."""
    if len(bank) <= SHEET_AT_MOST:
        return list(range(len(bank)))
    far = [outlier.class_name for outlier in statistics.outliers or () if outlier.far]
    suspects = map(bank.class_names.index, far)
    return list(dict.fromkeys([*suspects, *statistics.by_confusability]))[:SHEET_AT_MOST]
