"""Published lists of exemplars, such as PET-DINO's (arXiv 2604.00503), taken as they are.

JSON lines, one for the boxes of a class on an image::

    {"filename": "a.jpg", "height": 480, "width": 640, "detection": {"instances": [
        {"bbox": [x1, y1, x2, y2], "label": 1, "category": "cat"}, ...]}}

``filename`` is relative to the image folder, boxes are in pixels of the image file, and ``label``
is the category id in the annotation file that the list was drawn from.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from math import isfinite
from typing import Any

from mmdet.registry import DATASETS
from mmengine.logging import print_log

from ..structures.coco_file import as_number, check_coco, is_box
from ..utils.near_names import some
from .exemplar_dataset import ExemplarDataset
from .exemplar_selection import Box, candidate_boxes, shorter_side

_FORM = (
    'A line of a list is {"filename": "a.jpg", "height": 480, "width": 640, "detection": '
    '{"instances": [{"bbox": [x1, y1, x2, y2], "label": 1, "category": "cat"}]}}; a COCO file '
    'goes by ann_file instead.'
)


@DATASETS.register_module()
class SupportListDataset(ExemplarDataset):
    """Every box of a list of exemplars, crowds and small ones included.

    The ``ann_file`` is the list. Nothing is drawn, so ``shots`` and ``seed`` count for nothing;
    ``summary`` says the most exemplars of a class, and that there is no seed. Boxes without width
    or height inside their image are left out, logged, and counted in ``summary['boxes_left_out']``.
    """

    def load_data_list(self) -> list[dict]:
        """One entry per image; errors are those of the parent and :func:`read_support_list`."""
        entries = super().load_data_list()
        self.summary |= dict(shots=self.summary['most'], seed='none (a given list)')
        self.summary['boxes_left_out'] = self._left_out
        return entries

    def read(self, content: bytes) -> dict:
        """The list as ``read_coco`` would return the same boxes."""
        coco, left_out = read_support_list(content, self.ann_file, self.category_ids is None)
        self._left_out = len(left_out)
        if left_out:
            print_log(
                f'{self.ann_file}: {len(left_out)} boxes without width or height inside their '
                f'image are left out: {some(left_out)}',
                logger='current',
                level=logging.WARNING,
            )
        return coco

    def candidates(self, coco: dict, categories: dict[int, str]) -> dict[str, list]:
        """Every box of the list."""
        return candidate_boxes(coco, categories, smallest=0)

    def choose(self, name: str, candidates: list) -> list:
        """All of them."""
        return candidates


def read_support_list(
    content: bytes, path: str, unique_names: bool = True
) -> tuple[dict, list[str]]:
    """A list of exemplars as what ``read_coco`` returns; images have their file name as id.

    Args:
        content: the file, JSON lines in UTF-8.
        path: its path in messages.
        unique_names: refuse two categories of one name.

    Returns:
        Images, annotations and categories, boxes clipped to their image; and what was left out
        because nothing of it lies inside, in words.

    Raises:
        ValueError: a line, which is named, is not of the form above or contradicts another one.
    """
    images: dict[str, dict] = {}
    names: dict[int, str] = {}
    lines: dict[tuple[int, str], int] = {}  # of a class on an image
    annotations, left_out = [], []
    for number, entry in _entries(content, path):
        file, size = entry['filename'], {key: as_number(entry[key]) for key in ('width', 'height')}
        image = images.setdefault(file, dict(id=file, file_name=file, **size))
        if size != {key: image[key] for key in size}:
            raise ValueError(f'{path}, line {number}: {file} has another size than further above.')
        for instance in entry['detection']['instances']:
            label, name = instance['label'], instance['category']
            if names.setdefault(label, name) != name:
                raise ValueError(
                    f'{path}, line {number}: label {label} is {name!r}, further above it is '
                    f'{names[label]!r}.'
                )
            if (first := lines.setdefault((label, file), number)) != number:
                raise ValueError(
                    f'{path}, lines {first} and {number}: both list {name!r} on {file}. Put all '
                    'boxes of a class on an image into one line.'
                )
            box = _clipped(instance['bbox'], image)
            if shorter_side(box) <= 0:
                left_out.append(f'line {number}: {name!r} {instance["bbox"]}')
                continue
            width, height = box[2] - box[0], box[3] - box[1]
            annotations.append(
                dict(id=len(annotations) + 1, image_id=file, category_id=label, iscrowd=0)
                | dict(bbox=[*box[:2], width, height], area=width * height)
            )
    if not images:
        raise ValueError(f'{path} is empty. {_FORM}')
    categories = [dict(id=label, name=names[label]) for label in sorted(names)]
    coco = dict(images=[*images.values()], annotations=annotations, categories=categories)
    check_coco(coco, path, unique_names)
    return coco, left_out


def _entries(content: bytes, path: str) -> Iterator[tuple[int, dict]]:
    """Number and content of every line that is not blank."""
    for number, line in enumerate(content.split(b'\n'), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line.decode())
            wrong = next(_wrong(entry), None)
        except ValueError as error:
            wrong = f'no JSON in UTF-8 ({error})'
        if wrong:
            raise ValueError(f'{path}, line {number}: {wrong}. {_FORM}')
        yield number, entry


def _wrong(entry: Any) -> Iterator[str]:
    """What keeps a line from being read."""
    if not isinstance(entry, dict):
        yield 'no {…}'
        return
    if not isinstance(entry.get('filename'), str) or not entry['filename']:
        yield f'filename is {entry.get("filename")!r}, which is no path'
    for key in ('height', 'width'):
        if not (as_number(entry.get(key)) or 0) > 0:
            yield f'{key} is {entry.get(key)!r}, which is no size in pixels'
    detection = entry.get('detection')
    instances = detection.get('instances') if isinstance(detection, dict) else None
    if not isinstance(instances, list) or not instances:
        yield 'no list of boxes under detection.instances'
        return
    for instance in instances:
        found = instance if isinstance(instance, dict) else {}
        box = found.get('bbox')
        if not is_box(box) or not all(map(isfinite, box)):
            yield f'bbox is {box!r}, which is not four numbers'
        if type(found.get('label')) is not int:
            yield f'label is {found.get("label")!r}, which is no whole number'
        if not isinstance(found.get('category'), str):
            yield f'category is {found.get("category")!r}, which is no text'


def _clipped(box: list[float], image: dict) -> Box:
    x1, y1, x2, y2 = box
    return max(0, x1), max(0, y1), min(image['width'], x2), min(image['height'], y2)
