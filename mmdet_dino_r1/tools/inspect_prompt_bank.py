"""Look at a prompt bank: ``mim run mmdet_dino_r1 inspect_prompt_bank bank.safetensors``.

Prints where the bank came from, which classes will be confused and which exemplars stand apart,
and writes ``bank.png`` and ``contact_sheet.png``. What the numbers mean is said in
``mmdet_dino_r1/lab/prompt_banks/statistics.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from mmdet_dino_r1.lab.prompt_banks import statistics as bank_statistics
from mmdet_dino_r1.lab.prompt_banks.figures import contact_sheet, draw_bank
from mmdet_dino_r1.lab.prompt_banks.statistics import BankStatistics, Outlier
from mmdet_dino_r1.structures import PromptBank, load_prompt_bank

SHEET_AT_MOST = 40  # rows of the contact sheet


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='inspect_prompt_bank',
        description='Provenance, confusable classes and outliers of a prompt bank, with pictures.',
    )
    parser.add_argument('bank', type=Path, help='file that build_prompt_bank wrote')
    parser.add_argument(
        '--images',
        type=Path,
        help='folder of the images the exemplars lie in (default: the one the bank names)',
    )
    parser.add_argument(
        '--out', type=Path, help='folder of the pictures (default: BANK_inspection beside the bank)'
    )
    parser.add_argument(
        '--top',
        type=int,
        default=50,
        metavar='N',
        help='the N most confusable classes, and N outliers, are printed; 0 prints all (default '
        '%(default)s)',
    )
    parser.add_argument(
        '--json', action='store_true', help='print one JSON object with all classes instead'
    )
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    try:
        bank = load_prompt_bank(options.bank)
        if options.images is not None and not options.images.is_dir():
            raise FileNotFoundError(f'--images {options.images} is not a folder.')
        statistics = bank_statistics(bank)
        out = options.out or options.bank.with_name(f'{options.bank.stem}_inspection')
        written, left_out = write_pictures(bank, statistics, options.images, out)
    except (ValueError, OSError) as error:
        print(f'inspect_prompt_bank: {error}', file=sys.stderr)
        return 2
    if options.json:
        described = describe(bank, statistics)
        described |= dict(files=[str(path) for path in written], left_out=left_out)
        print(json.dumps(described, indent=1, ensure_ascii=False))
        return 0
    print(format_provenance(bank))
    print(format_table(bank, statistics, options.top))
    print(format_outliers(statistics, options.top))
    for line in left_out:
        print(f'Left out: {line}')
    for path in written:
        print(f'wrote {path}')
    return 0


# -------------------------------------------------------------------- text
def format_provenance(bank: PromptBank) -> str:
    """Size of a bank and what it was made of, one line each."""
    lines = [f'{len(bank)} classes, width {bank.dim}']
    for key, value in bank.provenance.items():
        if key == 'counts' or value in ({}, []):  # the counts stand in the table
            continue
        if key == 'merged':
            parts = [f'{part.get("ann_file", "?")} ({len(part["classes"])})' for part in value]
            value = f'{len(parts)} banks: ' + ', '.join(parts)
        lines.append(f'  {key:<16} {_shortened(value)}')
    return '\n'.join(lines) + '\n'


def format_table(bank: PromptBank, statistics: BankStatistics, top: int = 50) -> str:
    """The classes, most confusable first.

    Args:
        bank: what to describe.
        statistics: of this bank.
        top: how many classes; 0 for all.
    """
    names = [*bank.class_names, 'nearest class']
    width = max(map(len, names))
    header = f'{"class":<{width}} {"id":>6} {"exemplars":>9} {"spread":>6}  '
    lines = [f'{header}{"nearest class":<{width}} {"similarity":>10}']
    rows = statistics.by_confusability
    shown = rows[:top] if top > 0 else rows
    for row in shown:
        entry = describe_class(bank, statistics, row)
        cells = [
            f'{entry["name"]:<{width}}',
            f'{_text(entry["id"]):>6}',
            f'{_text(entry["exemplars"]):>9}',
            f'{_text(entry["spread"]):>6} ',
            f'{_text(entry["nearest_class"]):<{width}}',
            f'{_text(entry["similarity"]):>10}',
        ]
        lines.append(' '.join(cells))
    if len(shown) < len(rows):
        lines.append(f'… and {len(rows) - len(shown)} less confusable ones (--top 0 shows all)')
    return '\n'.join(lines) + '\n'


def format_outliers(statistics: BankStatistics, top: int = 50) -> str:
    """The exemplars that stand apart by the statistics, worst first; at most ``top``, 0 for all."""
    outliers = statistics.outliers
    if outliers is None:
        return (
            'Spread and outliers are unknown: the bank keeps the means only (it was built with '
            '--means-only, or merged with such a bank).\n'
        )
    if not outliers:
        return 'No outliers.\n'
    far = sum(outlier.far for outlier in outliers)
    lines = [
        f'{len(outliers)} outliers: {far} far from the rest of their class, '
        f'{sum(o.nearer_class is not None for o in outliers)} nearer to another class'
    ]
    shown = outliers[:top] if top > 0 else outliers
    lines += [f'  {_describe_outlier(outlier)}' for outlier in shown]
    if len(shown) < len(outliers):
        lines.append(f'  … and {len(outliers) - len(shown)} more (--top 0 shows all)')
    return '\n'.join(lines) + '\n'


def describe(bank: PromptBank, statistics: BankStatistics) -> dict:
    """A bank and its statistics in plain JSON values; what is unknown is None."""
    outliers = statistics.outliers
    return dict(
        provenance=bank.provenance,
        dim=bank.dim,
        classes=[describe_class(bank, statistics, row) for row in statistics.by_confusability],
        outliers=None if outliers is None else [asdict(outlier) for outlier in outliers],
    )


def describe_class(bank: PromptBank, statistics: BankStatistics, row: int) -> dict:
    """One class in plain JSON values; what is unknown is None.

    Args:
        bank: that has the class.
        statistics: of this bank.
        row: of the class in the bank.
    """
    nearest = int(statistics.nearest[row])
    return dict(
        name=bank.class_names[row],
        id=bank.class_ids[row] if bank.class_ids else None,
        exemplars=None if statistics.counts is None else int(statistics.counts[row]),
        spread=None if statistics.spread is None else _number(statistics.spread[row]),
        nearest_class=bank.class_names[nearest] if nearest >= 0 else None,
        similarity=_number(statistics.nearest_similarity[row]),
    )


def _describe_outlier(outlier: Outlier) -> str:
    box = ' '.join(f'{value:.0f}' for value in outlier.box)
    text = (
        f'{outlier.class_name}: image {outlier.image_id} ({outlier.file_name}), box {box}, '
        f'distance {outlier.distance:.2f} (usual {outlier.usual:.2f})'
    )
    if outlier.far:
        text += ', far'
    if outlier.nearer_class is not None:
        text += f', nearer to {outlier.nearer_class!r}'
    return text


def _number(value) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def _text(value: object) -> str:
    if value is None:
        return '–'
    return f'{value:.2f}' if isinstance(value, float) else str(value)


def _shortened(value: object, length: int = 110) -> str:
    text = str(value)
    return text if len(text) <= length else f'{text[: length - 1]}…'


# ---------------------------------------------------------------- pictures
def write_pictures(
    bank: PromptBank, statistics: BankStatistics, images: Path | None, out: Path
) -> tuple[list[Path], list[str]]:
    """Write what can be drawn into a folder.

    Args:
        bank: what to draw.
        statistics: of this bank.
        images: folder of the images; the one the bank names where None.
        out: folder to write into.

    Returns:
        The files, and one line on each picture that could not be drawn.

    Raises:
        OSError: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = [_write_image(out / 'bank.png', draw_bank(bank, statistics))]
    if bank.exemplars is None:
        return written, ['contact sheet: the bank does not say which boxes it was made of.']
    folders = image_folders(bank)
    if images is not None:
        folders = [str(images)] * len(bank)
    elif not any(folder and Path(folder).is_dir() for folder in folders):
        named = ', '.join(sorted({folder for folder in folders if folder})) or 'none'
        return written, [f'contact sheet: no image folder (named: {named}); give --images DIR.']
    labels, file_names = bank.exemplars.labels.tolist(), bank.exemplars.file_names
    paths = [
        Path(folders[label] or '', file_name)
        for label, file_name in zip(labels, file_names, strict=True)
    ]
    rows = rows_to_show(bank, statistics)
    sheet = contact_sheet(bank, paths, statistics, rows)
    written.append(_write_image(out / 'contact_sheet.png', sheet))
    if len(rows) < len(bank):
        left = len(bank) - len(rows)
        return written, [f'{left} classes of the contact sheet, without room on a sheet.']
    return written, []


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
    """All classes in order; of too many those with outliers first, then the confusable ones.

    Args:
        bank: to be shown.
        statistics: of this bank.
    """
    if len(bank) <= SHEET_AT_MOST:
        return list(range(len(bank)))
    row_of = {name: row for row, name in enumerate(bank.class_names)}
    suspects = [row_of[outlier.class_name] for outlier in statistics.outliers or () if outlier.far]
    return list(dict.fromkeys([*suspects, *statistics.by_confusability]))[:SHEET_AT_MOST]


def _write_image(path: Path, image: np.ndarray) -> Path:
    if not cv2.imwrite(str(path), image[..., ::-1]):
        raise OSError(f'Could not write {path}.')
    return path


if __name__ == '__main__':
    sys.exit(main())
