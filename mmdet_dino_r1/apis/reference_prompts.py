"""Boxes and points that somebody drew, checked and made exemplars.

Boxes are (x1, y1, x2, y2), points (x, y), both in pixels of the image as it is read: where a file
says that it is to be turned (EXIF), those of the turned image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from os import PathLike
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from .distractors import split_distractors

# Editors round, and detections written to a file end a fraction outside: that much is clipped.
TOLERANCE = 1.0
POINT_SIZE = 0.05
BoxesOrPoints: TypeAlias = Sequence[Sequence[float]] | np.ndarray | Tensor
Image: TypeAlias = str | PathLike | np.ndarray


@dataclass(frozen=True)
class Reference:
    """An image that shows what to look for.

    Attributes:
        image: path, URL or (h, w, 3) uint8 array in BGR order.
        boxes: one or more; four numbers are a box (x1, y1, x2, y2), two a point (x, y).
        classes: name of each box's class; a single name serves all boxes.

    Raises:
        ValueError: no box, or another number of names.
    """

    image: Image
    boxes: BoxesOrPoints
    classes: Sequence[str] | str

    def __post_init__(self) -> None:
        names = names_per_box(self.boxes, self.classes, describe(self.image, 'the array'))
        object.__setattr__(self, 'classes', names)


def describe(image: Image, array_name: str) -> str:
    """What messages and results call an image: its path or URL; of an (h, w, 3), ``array_name``.

    Raises:
        TypeError: it is none of these.
    """
    if not isinstance(image, str | PathLike | np.ndarray):
        raise TypeError(
            'An image is a path, a URL or a uint8 (height, width, 3) array in BGR order, not '
            f'{type(image).__name__}; np.asarray(image)[..., ::-1] makes one of an RGB PIL image.'
        )
    return array_name if isinstance(image, np.ndarray) else str(image)


def names_per_box(
    boxes: BoxesOrPoints, classes: Sequence[str] | str, where: str
) -> tuple[str, ...]:
    """One class name per box of an image (``where``, in messages); a text, as classes, is for all.

    Raises:
        ValueError: ``boxes`` is no list of boxes or has none, lengths differ, or a name is no text.
    """
    if any(np.ndim(box) != 1 for box in boxes):
        raise ValueError(
            f'{where}: boxes is a list of boxes, [[x1, y1, x2, y2], ...], even of a single one.'
        )
    if len(boxes) == 0:
        raise ValueError(f'{where}: a prompt needs at least one box.')
    names = (classes,) * len(boxes) if isinstance(classes, str) else tuple(classes)
    if len(names) != len(boxes):
        raise ValueError(
            f'{where}: {len(boxes)} boxes but {len(names)} class names; give one name per box, or '
            'a single text for all.'
        )
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f'{where}: a class name is a text, got {name!r}.')
    return names


@dataclass(frozen=True)
class CallPrompts:
    """What one call looks for: classes in label order, the distractors' labels last.

    ``own``: boxes or points on each image and the name of each; None: the prompts that were set.
    """

    wanted: tuple[str, ...]
    distractors: tuple[str, ...]
    own: list[tuple[BoxesOrPoints, tuple[str, ...]]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All classes, in label order."""
        return self.wanted + self.distractors

    @property
    def negative_labels(self) -> dict[int, None]:
        """Labels of the distractors, which are negatives of all; see :class:`VisualPrompts`."""
        return dict.fromkeys(range(len(self.wanted), len(self.names)))

    @classmethod
    def drawn(
        cls,
        images: Sequence[Image],
        boxes: Sequence,
        classes: Sequence | str | None,
        distractors: Sequence[str],
        single: bool,
    ) -> CallPrompts:
        """Boxes and names on the very images: a list for each, or those of the ``single`` one.

        Raises:
            ValueError: there are no names, lengths do not agree, or a distractor has no box.
        """
        if classes is None:
            raise ValueError('boxes= needs classes=, a name for each box.')
        if single:
            boxes = [boxes]
            classes = classes if isinstance(classes, str) else [classes]
        if isinstance(classes, str):
            classes = [classes] * len(boxes)
        if not len(images) == len(boxes) == len(classes):
            raise ValueError(
                f'{len(images)} images, but boxes for {len(boxes)} and class names for '
                f'{len(classes)}; give a list of boxes and one of names for each image.'
            )
        own = [
            (shapes, names_per_box(shapes, names, describe(image, f'array {index}')))
            for index, (image, shapes, names) in enumerate(zip(images, boxes, classes, strict=True))
        ]
        every = [name for _, names in own for name in names]
        return cls(*split_distractors(every, distractors), own)


def exemplar_boxes(
    shapes: BoxesOrPoints,
    image_size: tuple[int, int],
    where: str,
    point_size: float = POINT_SIZE,
) -> Tensor:
    """Boxes and points of an image of ``image_size`` (h, w) as (n, 4) float boxes, clipped to it.

    A point becomes a square, whose side is ``point_size`` of the shorter side of the image
    (``where``, in messages). Weights trained on boxes only were never taught points: where the
    square is much larger or smaller than the object, expect little.

    Raises:
        ValueError: a box is empty, a box or point lies outside the image by more than a pixel,
            has another number of coordinates, or some that are not finite.
    """
    height, width = image_size
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    half = point_size * min(height, width) / 2
    boxes = []
    for shape in shapes:
        numbers = [float(number) for number in shape]
        shown = f'({", ".join(f"{number:g}" for number in numbers)})'
        if len(numbers) not in (2, 4) or not all(map(isfinite, numbers)):
            raise ValueError(
                f'{where}: {shown} is neither a box (x1, y1, x2, y2) nor a point (x, y).'
            )
        box = torch.tensor(numbers if len(numbers) == 4 else numbers * 2)
        if ((box < -TOLERANCE) | (box > limits + TOLERANCE)).any():
            raise ValueError(
                f'{where}: {shown} reaches outside the image, which is {width}x{height} pixels '
                '(width x height).'
            )
        if len(numbers) == 2:
            box += torch.tensor([-half, -half, half, half])
        box = torch.minimum(box.clamp(min=0), limits)
        if not (box[2:] > box[:2]).all():
            raise ValueError(f'{where}: the box {shown} is empty; boxes are (x1, y1, x2, y2).')
        boxes.append(box)
    return torch.stack(boxes)
