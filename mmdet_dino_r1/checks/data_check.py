"""What is wrong with an annotation file by itself; mmdet passes over most in silence."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .annotation_table import AnnotationTable, repeated
from .data_problem import Problem, problem, problems

_FORM = 'bbox is [left, top, width, height] in pixels of the image file.'
_CORNERS = ' Corners [x1, y1, x2, y2] and boxes of resized images look like this.'
# what is said where most boxes are so: a matter of their form, not of slips
_OF_MOST = dict(
    box_tiny=' Fractions of the image look like this.',
    **dict.fromkeys(('box_flat', 'box_outside', 'box_beyond'), _CORNERS),
)


def check_file(table: AnnotationTable, uses: Collection[str]) -> list[Problem]:
    """Problems of a file by itself, used for 'train', 'val', 'test', 'prompts' or 'metric'."""
    read = ['image_id', 'category_id', 'bbox']
    by_mmdet = bool(set(uses) - {'prompts'})  # CocoDataset, through pycocotools
    read += ['id', 'area'] if by_mmdet else []
    read += ['iscrowd'] if 'metric' in uses and not table.is_lvis else []
    counts = table.count(table.is_read | table.is_exemplar)
    empty = [name for name, count in zip(table.names, counts, strict=True) if not count]
    ids = [id_ for id_ in table.ann_ids if id_ is not None] if by_mmdet else []
    # those that name nothing are told as missing
    lost_image = np.setdiff1d(np.flatnonzero(table.image < 0), table.lacking['image_id'])
    lost_category = np.setdiff1d(np.flatnonzero(table.category < 0), table.lacking['category_id'])
    checks = (
        ('image_id_repeated', repeated(table.image_ids), str),
        ('image_file_repeated', repeated(filter(None, table.files)), str),
        ('image_file_missing', np.flatnonzero([not f for f in table.files]), table.image_name),
        ('image_size_missing', np.flatnonzero(~(table.sizes > 0).all(1)), table.image_name),
        ('category_id_repeated', repeated(id_ for id_, _ in table.categories), str),
        ('category_name_repeated', repeated(table.names), repr),
        ('category_empty', empty if len(empty) < len(table.names) else (), repr),
        *((f'{key}_missing', table.lacking[key], table.name) for key in read),
        ('annotation_id_repeated', repeated(ids), str),
        ('image_unknown', lost_image, table.name),
        ('category_unknown', lost_category, table.name),
    )
    found = []
    for kind, entries, tell in checks:
        # exemplars cannot be cut from an unknown image
        level = 'error' if kind == 'image_unknown' and 'prompts' in uses else ''
        found += problems(kind, table.path, entries, tell, level, of=len(table.names))
    return found + _boxes(table)


def _boxes(table: AnnotationTable) -> list[Problem]:
    boxes, inside = table.boxes, table.inside
    finite = np.isfinite(boxes).all(1)
    not_finite = ~finite
    not_finite[table.lacking['bbox']] = False
    flat = finite & (boxes[:, 2:] <= 0).any(1)
    outside = finite & ~flat & (inside <= 0).any(1)
    good = finite & ~flat & ~outside
    tiny = good & (boxes[:, 2:] < 1).any(1)
    end = boxes[:, :2] + boxes[:, 2:]
    beyond = good & ((boxes[:, :2] < -1).any(1) | (end > table.box_sizes + 1).any(1))
    masks = dict(box_not_finite=not_finite, box_flat=flat, box_outside=outside, box_tiny=tiny)
    masks |= dict(box_beyond=beyond, area_flat=good & ~tiny & (table.areas <= 0))
    found = []
    for kind, mask in masks.items():
        most = bool(2 * mask.sum() > len(table))
        form = _FORM + _OF_MOST.get(kind, '') * most
        level, rows = 'error' if most else '', np.flatnonzero(mask)
        found += problems(kind, table.path, rows, table.name_with_box, level, form=form)
    if not (table.is_read | table.is_exemplar).any():
        found.append(problem('no_box', table.path, len(table)))
    return found
