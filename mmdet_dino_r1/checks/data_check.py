"""What is wrong with an annotation file by itself; mmdet passes over most in silence."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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


def check_file(
    table: AnnotationTable, uses: Collection[str], by_mmdet: Collection[str] = ()
) -> list[Problem]:
    """Problems of a file by itself, used for 'train', 'val', 'test', 'prompts' or 'metric'.

    ``by_mmdet`` names those of mmdet's own 'CocoDataset' and 'CocoMetric' that read it, which take
    less than ours.
    """
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
        *((f'{key}_missing', rows, table.name) for key, rows in table.lacking.items()),
        ('crowd_unclear', table.unclear, table.name),
        ('image_unknown', lost_image, table.name),
        ('category_unknown', lost_category, table.name),
    )
    found = []
    for kind, entries, tell in checks:
        found += problems(kind, table.path, entries, tell)
    if 'CocoDataset' in by_mmdet:
        found += _odd(table, 'CocoDataset', table.odd_dataset)
    if 'CocoMetric' in by_mmdet:
        found += _odd(table, 'CocoMetric', table.odd_metric)
    if not len(table) and not {'train', 'prompts', 'metric'} & set(uses):
        return found  # nobody asks for boxes
    return found + (_boxes(table) if table.is_annotated else [problem('not_annotated', table.path)])


def _odd(table: AnnotationTable, reader: str, rows: Mapping[str, np.ndarray]) -> list[Problem]:
    """What mmdet's own reader of that name cannot read, or takes for something else."""
    words = dict(reader=reader, ours=reader.replace('Coco', 'CocoJson'))
    ids = repeated(table.ann_ids[row] for row in np.setdiff1d(range(len(table)), rows['id']))
    found = problems('annotation_id_repeated', table.path, ids, **words)
    for key in rows:
        found += problems('odd', table.path, rows[key], table.name, key=key, **words)
    return found + problems('odd_size', table.path, table.odd_images, table.image_name, **words)


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
