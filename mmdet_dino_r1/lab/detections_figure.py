"""Prompts beside what they find.

Images are RGB, uint8 ``(height, width, 3)``; boxes are float
``(x1, y1, x2, y2)`` in pixels of their image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..utils.fonts import write_texts

# Told apart also by the colour-blind (Okabe and Ito), after that they repeat.
COLOURS = tuple(
    tuple(bytes.fromhex(code))
    for code in ('e69f00', '56b4e9', '009e73', 'd55e00', 'cc79a7', '0072b2')
)
OTHER = (110, 110, 110)  # classes that the row does not prompt
_INK, _WHITE = (30, 30, 30), (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MARGIN = 12
_CROP = 72  # side of the exemplars


@dataclass
class DetectionRow:
    """One row of the figure: prompts, truth and detections of an image."""

    title: str
    class_names: Sequence[str]  # whose prompts are shown
    prompts: Sequence[Sequence[np.ndarray]]  # crops of the exemplars of each class
    image: np.ndarray
    gt_boxes: np.ndarray  # (num_gts, 4)
    gt_labels: np.ndarray  # (num_gts,), indices into class_names
    boxes: np.ndarray  # (num_dets, 4), detections
    labels: np.ndarray  # (num_dets,), -1 for a class without a name here
    scores: np.ndarray  # (num_dets,) in [0, 1]


def draw_prompts_and_detections(
    rows: Sequence[DetectionRow], score_thr: float = 0.25, size: int = 320
) -> np.ndarray:
    """Draw exemplars, ground truth and detections side by side, row by row, on white.

    Detections below the threshold are left out. Images get their longer side of this size.
    """
    shots = max((len(crops) for row in rows for crops in row.prompts), default=0)
    widths = (max(shots * (_CROP + 4) + 170, 260), size, size)
    head = ('prompts', 'ground truth', f'detections >= {score_thr:g} (grey: other class)')
    blocks = [_side_by_side([_text(title) for title in head], widths)]
    for row in rows:
        kept = row.scores >= score_thr
        panels = (
            _draw_prompts(row, widths[0]),
            _draw_boxes(row.image, row.gt_boxes, row.gt_labels, None, size),
            _draw_boxes(row.image, row.boxes[kept], row.labels[kept], row.scores[kept], size),
        )
        blocks.append(_side_by_side([_text(row.title)], widths))
        blocks.append(_side_by_side(panels, widths))
    return np.concatenate(blocks)


def colour_of(label: int) -> tuple[int, int, int]:
    """Colour of a class of a row; grey for another class (-1)."""
    return OTHER if label < 0 else COLOURS[label % len(COLOURS)]


def _draw_prompts(row: DetectionRow, width: int) -> np.ndarray:
    """One line per class: its exemplars, framed in its colour, and its name."""
    lines = [np.full((1, width, 3), 255, np.uint8)]
    for label, (name, crops) in enumerate(zip(row.class_names, row.prompts, strict=True)):
        line = np.full((_CROP + 4, width, 3), 255, np.uint8)
        for place, exemplar in enumerate(crops):
            shown = _fit(exemplar, _CROP)
            height, length = shown.shape[:2]
            cv2.rectangle(shown, (0, 0), (length - 1, height - 1), colour_of(label), 2)
            line[:height, place * (_CROP + 4) :][:, :length] = shown
        left = len(crops) * (_CROP + 4) + 6
        lines.append(write_texts(line, [(left, _CROP // 2 - 8, name, 13, _INK)]))
    return np.concatenate(lines)


def _draw_boxes(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray | None, size: int
) -> np.ndarray:
    """The image at its size in the figure with framed boxes on it."""
    shown = _fit(image, size)
    scale = np.array([shown.shape[1] / image.shape[1], shown.shape[0] / image.shape[0]] * 2)
    # the best detections are drawn last, on top
    for index in range(len(boxes)) if scores is None else np.argsort(scores):
        x1, y1, x2, y2 = np.round(boxes[index] * scale).astype(int).tolist()
        colour = colour_of(int(labels[index]))
        cv2.rectangle(shown, (x1, y1), (x2, y2), colour, 2)
        if scores is not None:
            text = f'{scores[index]:.2f}'
            (width, height), _ = cv2.getTextSize(text, _FONT, 0.4, 1)
            top = max(y1, height + 4)
            cv2.rectangle(shown, (x1, top - height - 4), (x1 + width + 2, top), colour, -1)
            cv2.putText(shown, text, (x1 + 1, top - 2), _FONT, 0.4, _WHITE, 1, cv2.LINE_AA)
    return shown


def _fit(image: np.ndarray, size: int) -> np.ndarray:
    """A copy whose longer side is ``size``."""
    scale = size / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)


def _text(text: str) -> np.ndarray:
    """A line of text, wide enough for any."""
    line = np.full((17, 1000, 3), 255, np.uint8)
    return write_texts(line, [(0, 0, text, 13, _INK)])


def _side_by_side(panels: Sequence[np.ndarray], widths: Sequence[int]) -> np.ndarray:
    """Panels in white columns of the given widths, aligned at the top; the next covers the last."""
    height = max(panel.shape[0] for panel in panels) + _MARGIN
    row = np.full((height, sum(widths) + _MARGIN * (len(widths) + 1), 3), 255, np.uint8)
    left = _MARGIN
    for panel, width in zip(panels, widths, strict=False):
        part = panel[:, : row.shape[1] - left]
        row[: part.shape[0], left : left + part.shape[1]] = part
        left += width + _MARGIN
    return row
