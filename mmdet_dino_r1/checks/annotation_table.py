"""A parsed COCO or LVIS file as columns, and what can be counted in it.

Millions of boxes are checked in seconds that way.

Shapes: n annotations; boxes are COCO's (x, y, width, height) in pixels of the image file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from ..structures.coco_file import (
    FLAGS,
    REFERENCES,
    area_of,
    as_flag,
    as_number,
    check_coco,
    id_finder,
    image_file,
    is_box,
    is_number,
)


class AnnotationTable:
    """Columns of an annotation file, from a parsed ``coco`` file and its ``path`` in messages.

    Attributes:
        is_annotated: whether it has ``annotations``, which files of test sets may lack.
        image_ids, files, sizes: id, path below the image folder ('' where it has none) and
            (width, height) of each image, NaN where the file does not say.
        categories: (id, name) in the file's order.
        image, category: (n,) row of its image and of its category, -1 where the file has none.
        boxes: (n, 4) float, NaN where there is no box of four numbers.
        crowd: (n,) bool, crowds and ignored ones.
        lacking: rows of the annotations without each of the keys that every reader needs.
        unclear: rows of those whose ``iscrowd`` or ``ignore`` is neither 0 nor 1.
        odd_images: rows of the images whose size is a text, which mmdet's own classes cannot read.
        odd_dataset, odd_metric: by key, rows of the annotations that mmdet's own ``CocoDataset``
            and ``CocoMetric`` cannot read or take for something else.

    Raises:
        ValueError: it is not a COCO file.
    """

    def __init__(self, coco: Any, path: str) -> None:
        check_coco(coco, path, unique_names=False)
        self.path = path
        try:
            self._read(coco)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f'{path} is not a COCO annotation file: {error!r}') from error

    def _read(self, coco: dict) -> None:
        self.is_annotated = 'annotations' in coco
        images, anns = coco['images'], coco.get('annotations', [])
        self.image_ids = [image['id'] for image in images]
        named = {'file_name', 'coco_url'}
        self.files = [image_file(image) if named & image.keys() else '' for image in images]
        sizes = [[image.get('width'), image.get('height')] for image in images]
        self.odd_images = np.flatnonzero([str in map(type, size) for size in sizes])
        sizes = [[as_number(side) for side in size] for size in sizes]
        self.sizes = np.array(sizes, dtype=float).reshape(-1, 2)
        self.categories = [(category['id'], category['name']) for category in coco['categories']]

        self.ann_ids = [ann.get('id') for ann in anns]
        self.lacking = {key: np.flatnonzero([key not in ann for ann in anns]) for key in REFERENCES}
        self.image = _rows(self.image_ids, (ann.get('image_id') for ann in anns), len(anns))
        ids = [id_ for id_, _ in self.categories]
        self.category = _rows(ids, (ann.get('category_id') for ann in anns), len(anns))
        boxes = (ann.get('bbox') for ann in anns)
        boxes = [box if is_box(box) else [np.nan] * 4 for box in boxes]
        self.boxes = np.array(boxes, dtype=float).reshape(-1, 4)
        self.areas = np.array([area_of(ann) for ann in anns], dtype=float)
        flags = [[as_flag(ann.get(key)) for ann in anns] for key in FLAGS]
        flags = np.array(flags, dtype=float)  # NaN for what is neither
        self.unclear = np.flatnonzero(np.isnan(flags).any(0))
        self.crowd = (flags == 1).any(0)

        # what mmdet's own classes stumble over
        odd = {key: [type(ann.get(key)) is str for ann in anns] for key in FLAGS}
        odd['area'] = [not is_number(ann.get('area')) for ann in anns]
        for key, known in (('image_id', self.image_ids), ('category_id', ids)):
            meant = id_finder(known)
            values = (ann.get(key) for ann in anns)
            odd[key] = [meant(value) not in (None, value) for value in values]
        odd['id'] = [id_ is None or isinstance(id_, list | dict) for id_ in self.ann_ids]
        self.odd_dataset = {key: np.flatnonzero(column) for key, column in odd.items()}
        odd['id'] = [not is_number(id_) or id_ == 0 for id_ in self.ann_ids]
        odd['iscrowd'] = [not isinstance(ann.get('iscrowd'), int | float) for ann in anns]
        self.odd_metric = {key: np.flatnonzero(column) for key, column in odd.items()}

    def __len__(self) -> int:
        return len(self.ann_ids)

    @property
    def names(self) -> list[str]:
        """Category names in the file's order."""
        return [name for _, name in self.categories]

    @property
    def inside(self) -> np.ndarray:
        """(n, 2) width and height of what lies inside the image; not positive outside."""
        with np.errstate(invalid='ignore'):  # infinite boxes
            end = np.minimum(self.boxes[:, :2] + self.boxes[:, 2:], self.box_sizes)
            return end - np.maximum(self.boxes[:, :2], 0)

    @property
    def box_sizes(self) -> np.ndarray:
        """(n, 2) width and height of each annotation's image, NaN where it is not known."""
        return np.vstack([self.sizes, [[np.nan, np.nan]]])[self.image]

    @property
    def is_read(self) -> np.ndarray:
        """(n,) bool, True for what ``CocoDataset`` keeps as a box to train on or to find."""
        big = (self.boxes[:, 2:] >= 1).all(1) & (self.inside > 0).all(1) & (self.areas > 0)
        return big & (self.category >= 0) & ~self.crowd

    @property
    def is_exemplar(self) -> np.ndarray:
        """(n,) bool, True for what may become an exemplar (``exemplar_selection.py``)."""
        return (self.inside >= 1).all(1) & (self.category >= 0) & ~self.crowd

    def count(self, wanted: np.ndarray) -> list[int]:
        """How many of the annotations wanted, an (n,) mask, each category has."""
        rows = self.category[wanted & (self.category >= 0)]
        return np.bincount(rows, minlength=len(self.categories)).tolist()

    def image_name(self, row: int) -> str:
        """Which image a row is: 'image 3'."""
        return f'image {self.image_ids[row]}'

    def name(self, row: int) -> str:
        """Which annotation a row is: 'annotation 7 of image 3'."""
        of = f' of {self.image_name(self.image[row])}' if self.image[row] >= 0 else ''
        return f'annotation {self.ann_ids[row]}{of}'

    def name_with_box(self, row: int) -> str:
        """The same and its (x, y, width, height)."""
        return f'{self.name(row)}: {[round(float(x), 1) for x in self.boxes[row]]}'

    def summary(self) -> dict[str, Any]:
        """Images, boxes and classes in numbers; boxes of a class are those that are read."""
        with_boxes = len(np.unique(self.image[self.image >= 0]))
        counts = zip(self.names, self.count(self.is_read), strict=True)
        return dict(
            images=len(self.image_ids),
            images_without_boxes=len(self.image_ids) - with_boxes,
            boxes=len(self),
            crowd_boxes=int(self.crowd.sum()),
            classes=len(self.categories),
            boxes_by_class=dict(sorted(counts, key=lambda item: item[1])),
        )


def repeated(values: Iterable[Hashable]) -> list:
    """Values that occur more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def _rows(ids: Sequence[Hashable], wanted: Iterable, count: int) -> np.ndarray:
    """Position of each value wanted among the ids, -1 where it is none of them."""
    position, find = {id_: row for row, id_ in enumerate(ids)}, id_finder(ids)
    return np.fromiter((position.get(find(value), -1) for value in wanted), np.int64, count)
