"""The boxes a prompt bank was made of, in a picture.

Images are RGB, uint8 ``(height, width, 3)``; boxes are ``(x1, y1, x2, y2)`` in pixels of the
image file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ...structures import PromptBank
from ...utils.fonts import write_texts
from .statistics import BankStatistics

_CONTEXT = 0.25  # shown around the boxes, in parts of the longer side of what encloses them
_LABEL = 190  # width of the names
_CELL = 88  # side of an exemplar
_GAP = 6
_LINE = 15  # height of a line of small text
_INK, _GREY, _PALE = (30, 30, 30), (120, 120, 120), (238, 238, 238)
_BOX, _RED = (0, 114, 178), (213, 30, 30)


def contact_sheet(
    bank: PromptBank,
    paths: Sequence[str | Path],
    statistics: BankStatistics,
    rows: Sequence[int],
    columns: int = 16,
) -> np.ndarray:
    """The exemplars of some classes, one row per class, with some of their surroundings.

    Boxes that were encoded together are one exemplar and share a cell. Outliers come first in
    their row, framed in red with the id of their image. There are as many paths as exemplars; a
    file that is missing or no image leaves a cell that says so. ValueError: the bank has no record
    of its exemplars.
    """
    if bank.exemplars is None:
        raise ValueError('This prompt bank does not say which boxes it was made of.')
    outliers = {outlier.exemplar for outlier in statistics.outliers or ()}
    of_class = defaultdict(list)
    for exemplar, label in enumerate(bank.exemplars.set_labels.tolist()):
        of_class[label].append(exemplar)
    shown = {row: sorted(of_class[row], key=lambda e: e not in outliers)[:columns] for row in rows}
    height, widest = _CELL + _LINE + _GAP, max(map(len, shown.values()), default=0)
    size = (height * len(shown) + _GAP, _LABEL + widest * (_CELL + _GAP), 3)
    sheet = np.full(size, 255, np.uint8)
    texts = []  # (left, top, text, size, colour), written at the end, in one go
    for index, (row, chosen) in enumerate(shown.items()):
        top = _GAP + index * height
        texts += _class_label(bank, statistics, row, len(of_class[row]), len(chosen), top)
        for place, exemplar in enumerate(chosen):
            left = _LABEL + place * (_CELL + _GAP)
            members = bank.exemplars.members[exemplar]
            picture = _cell(Path(paths[exemplar]), bank.exemplars.boxes[members].numpy())
            if isinstance(picture, str):  # why there is none
                texts.append((left + 5, top + _CELL // 2 - 8, picture, 11, _GREY))
                picture = _PALE
            sheet[top : top + _CELL, left : left + _CELL] = picture
            if exemplar in outliers:
                corner = (left + _CELL - 1, top + _CELL - 1)
                cv2.rectangle(sheet, (left, top), corner, _RED, 3)
                image_id = shortened(f'id {bank.exemplars.image_ids[members[0]]}', _CELL // 6)
                texts.append((left, top + _CELL + 1, image_id, 11, _RED))
    return write_texts(sheet, texts)


def shortened(text: str, length: int) -> str:
    """The text, cut in the middle to a length where it is longer."""
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f'{text[: length - 1 - half]}…{text[-half:]}'


def _cell(path: Path, boxes: np.ndarray) -> np.ndarray | str:
    """A square around (n, 4) boxes, outlined, pale outside the image; or why there is none."""
    image = cv2.imread(str(path)) if path.is_file() else None
    if image is None:
        why = 'not an image' if path.is_file() else 'no such file'
        return f'{why}\n{shortened(path.name, _CELL // 7)}'
    height, width = image.shape[:2]
    boxes = np.clip(boxes.astype(float), 0, [width, height] * 2)
    (x1, y1), (x2, y2) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = int(np.ceil(max(x2 - x1, y2 - y1, 1.0) * (1 + 2 * _CONTEXT)))
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    square = np.full((side, side, 3), _PALE, np.uint8)
    inner = image[max(top, 0) : top + side, max(left, 0) : left + side, ::-1]
    down, right = max(-top, 0), max(-left, 0)
    square[down : down + inner.shape[0], right : right + inner.shape[1]] = inner
    method = cv2.INTER_AREA if side > _CELL else cv2.INTER_CUBIC
    shown = cv2.resize(square, (_CELL, _CELL), interpolation=method)
    for corners in np.round((boxes - [left, top] * 2) * _CELL / side).astype(int):
        cv2.rectangle(shown, corners[:2].tolist(), corners[2:].tolist(), _BOX, 1)
    return shown


def _class_label(
    bank: PromptBank, statistics: BankStatistics, row: int, count: int, shown: int, top: int
) -> list[tuple]:
    """What stands left of a class's exemplars: name, count, spread, most similar class."""
    lines = [f'{count} exemplar' + 's' * (count != 1) + f', {shown} shown' * (shown < count)]
    if statistics.spread is not None and not statistics.spread[row].isnan():
        lines.append(f'spread {statistics.spread[row]:.2f}')
    if (nearest := statistics.nearest[row]) >= 0:
        lines.append(f'most like ({statistics.nearest_similarity[row]:.2f}):')
        lines.append(shortened(bank.class_names[nearest], 24))
    below = [(_GAP, top + 20 + n * _LINE, line, 10, _GREY) for n, line in enumerate(lines)]
    return [(_GAP, top, shortened(bank.class_names[row], 24), 13, _INK), *below]
