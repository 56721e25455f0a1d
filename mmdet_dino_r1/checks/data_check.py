"""What is wrong with an annotation file and its images, before somebody trains on them.

mmdet passes over most of it in silence: boxes and images are dropped, or the run ends after its
first epoch.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import ExifTags, Image

from .annotation_table import AnnotationTable, repeated
from .data_problem import EXAMPLES, Problem, error, number, warning

FIRST_IMAGES = 20  # looked up where not all are asked for

_BOX_FORM = 'bbox is [left, top, width, height] in pixels of the image file.'
_WRONG_FORM = ' Corners [x1, y1, x2, y2] and boxes of resized images look like this.'
_DROPPED = 'CocoDataset drops them'


def check_file(table: AnnotationTable, uses: Collection[str]) -> list[Problem]:
    """Problems of a file by itself.

    Args:
        table: the file.
        uses: what it serves for: 'train', 'val', 'test', 'prompts', 'metric' (``CocoMetric``).
    """
    return [
        *_images(table),
        *_categories(table),
        *_lacking_keys(table, uses),
        *_references(table, uses),
        *_boxes(table),
    ]


def _images(table: AnnotationTable) -> Iterable[Problem]:
    if ids := repeated(table.image_ids):
        what = f'{number(ids, "image id")} used more than once; only the last image is read'
        yield error('image_id_repeated', table.path, what, 'Give each image its own id.', ids)
    if files := repeated(file for file in table.files if file):
        what = f'{number(files, "image file")} listed more than once'
        remedy = 'Put all boxes of an image under one entry of `images`.'
        yield warning('image_file_repeated', table.path, what, remedy, files)
    said = [f'image {id_}' for id_ in table.image_ids]
    nameless = [name for name, file in zip(said, table.files, strict=True) if not file]
    if nameless:
        what = f'{number(nameless, "image")} without file_name'
        yield error('image_file_missing', table.path, what, 'Add it.', nameless)
    unsized = [said[row] for row in np.flatnonzero(~(table.sizes > 0).all(1))]
    if unsized:
        what = f'{number(unsized, "image")} without width and height, which mmdet reads'
        yield error('image_size_missing', table.path, what, 'Add both, in pixels.', unsized)


def _categories(table: AnnotationTable) -> Iterable[Problem]:
    if ids := repeated(id_ for id_, _ in table.categories):
        what = f'{number(ids, "category id")} used more than once'
        yield error('category_id_repeated', table.path, what, 'Give each its own id.', ids)
    if names := repeated(table.names):
        what = f'{number(names, "category name")} used more than once'
        remedy = 'Give each category its own name, or merge them.'
        yield error('category_name_repeated', table.path, what, remedy, map(repr, names))
    counts = table.count(table.is_read | table.is_exemplar)
    empty = [name for name, count in zip(table.names, counts, strict=True) if not count]
    if 0 < len(empty) < len(table.names):
        what = f'{number(empty, "category", "categories")} of {len(table.names)} without a box'
        remedy = 'They are neither trained nor evaluated; add boxes, or remove them.'
        yield warning('category_empty', table.path, what, remedy, map(repr, empty))


def _lacking_keys(table: AnnotationTable, uses: Collection[str]) -> Iterable[Problem]:
    readers = dict.fromkeys(('image_id', 'category_id', 'bbox'), 'every reader')
    if set(uses) - {'prompts'}:
        readers |= dict(id='pycocotools', area='CocoDataset')
    if 'metric' in uses and not table.is_lvis:
        readers |= dict(iscrowd='CocoMetric')
    remedies = dict(area='Add it: width x height of the box.', iscrowd='Add iscrowd=0.')
    for key, reader in readers.items():
        if len(rows := table.lacking[key]):
            what = f'{number(rows, "annotation")} without {key}, which {reader} reads'
            remedy = remedies.get(key, 'Add it.')
            yield _of_rows('error', f'{key}_missing', table, what, remedy, rows)


def _references(table: AnnotationTable, uses: Collection[str]) -> Iterable[Problem]:
    if set(uses) - {'prompts'} and (ids := repeated(i for i in table.ann_ids if i is not None)):
        what = f'{number(ids, "annotation id")} used more than once, which CocoDataset refuses'
        yield error('annotation_id_repeated', table.path, what, 'Number them anew.', ids)
    if len(rows := _unknown(table.image, table.lacking['image_id'])):
        level = 'error' if 'prompts' in uses else 'warning'  # exemplars cannot be cut from them
        what = f'{number(rows, "annotation")} of an image that the file does not list'
        remedy = 'Remove these annotations, or add their images to `images`.'
        yield _of_rows(level, 'image_unknown', table, what, remedy, rows)
    if len(rows := _unknown(table.category, table.lacking['category_id'])):
        what = f'{number(rows, "annotation")} of a category that the file does not list: dropped'
        remedy = 'Add their categories to `categories`.'
        yield _of_rows('warning', 'category_unknown', table, what, remedy, rows)


def _boxes(table: AnnotationTable) -> Iterable[Problem]:
    boxes, inside = table.boxes, table.inside
    finite = np.isfinite(boxes).all(1)
    not_finite = ~finite
    not_finite[table.lacking['bbox']] = False
    flat = finite & (boxes[:, 2:] <= 0).any(1)
    good = finite & ~flat
    outside = good & (inside <= 0).any(1)
    good &= ~outside
    tiny = good & (boxes[:, 2:] < 1).any(1)
    end = boxes[:, :2] + boxes[:, 2:]
    beyond = good & ((boxes[:, :2] < -1).any(1) | (end > table.box_sizes + 1).any(1))
    no_area = good & ~tiny & (table.areas <= 0)
    for kind, mask, what in (
        ('box_not_finite', not_finite, 'whose bbox is not four finite numbers'),
        ('box_flat', flat, f'whose width or height is not positive: {_DROPPED}'),
        ('box_outside', outside, f'outside the image: {_DROPPED}'),
        ('box_tiny', tiny, f'whose width or height is under 1 pixel: {_DROPPED}'),
        ('box_beyond', beyond, 'reaching beyond the image by more than 1 pixel'),
        ('area_flat', no_area, f'whose area is not positive: {_DROPPED}'),
    ):
        if not mask.any():
            continue
        # so many are a matter of their form, not of slips
        most = 2 * mask.sum() > len(table)
        level = 'error' if most or kind == 'box_not_finite' else 'warning'
        remedy = 'Write area=width*height.' if kind == 'area_flat' else _BOX_FORM
        if most and kind in ('box_flat', 'box_outside', 'box_beyond'):
            remedy += _WRONG_FORM
        if most and kind == 'box_tiny':
            remedy += ' Fractions of the image look like this.'
        rows = np.flatnonzero(mask)
        said = f'{number(rows, "box", "boxes")} {what}'
        yield _of_rows(level, kind, table, said, remedy, rows, with_box=True)
    if not (table.is_read | table.is_exemplar).any():
        what = f'none of its {len(table)} boxes can be used' if len(table) else 'it has no boxes'
        remedy = 'Correct what is said of them here.' if len(table) else 'Is it the right file?'
        yield Problem('error', 'no_box', table.path, what, remedy, len(table))


def check_images(table: AnnotationTable, folder: str, each: bool = False) -> list[Problem]:
    """Look for the image files.

    Args:
        table: the annotation file.
        folder: of the images.
        each: read each to its end, and compare its size; otherwise the first 20 are looked for.
    """
    listed = [(file, row) for row, file in enumerate(table.files) if file]
    listed = listed if each else listed[:FIRST_IMAGES]
    paths = {os.path.join(folder, file): row for file, row in listed}
    missing = [path for path in paths if not os.path.isfile(path)]
    problems = []
    if missing:
        of = f'{len(paths)}' if each else f'the first {len(paths)}'
        what = f'{number(missing, "image file")} of {of} missing'
        remedy = 'data_root, data_prefix.img and file_name are joined; correct what is wrong.'
        problems.append(error('image_missing', table.path, what, remedy, missing))
    if not each:
        return problems
    there = [path for path in paths if path not in set(missing)]
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        sizes = dict(zip(there, pool.map(_image_size, there), strict=True))
    if broken := [path for path, size in sizes.items() if size is None]:
        what = f'{number(broken, "image file")} that cannot be read'
        problems.append(error('image_broken', table.path, what, 'Replace them.', broken))
    differing = [
        f'{path}: {size[0]}x{size[1]}, not {table.sizes[row][0]:g}x{table.sizes[row][1]:g}'
        for path, row in paths.items()
        if (size := sizes.get(path)) and size != tuple(table.sizes[row])
    ]
    if differing:
        what = f'{number(differing, "image")} of another width and height than the file says'
        remedy = 'Correct width and height, and the boxes if the images were resized.'
        problems.append(error('image_size_differs', table.path, what, remedy, differing))
    return problems


def _image_size(path: str) -> tuple[int, int] | None:
    """(width, height) as mmcv reads it, turned as the camera says; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            size = image.size[::-1] if turned else image.size
            # to the file's end, where it may be cut off; an eighth of a JPEG's pixels will do
            image.draft(None, (1, 1))
            image.load()
            return size
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ):  # PIL's words for a broken file
        return None


def _unknown(rows: np.ndarray, lacking: np.ndarray) -> np.ndarray:
    """Annotations that name what is not there; those that name nothing are told elsewhere."""
    return np.setdiff1d(np.flatnonzero(rows < 0), lacking)


def _of_rows(
    level: str,
    kind: str,
    table: AnnotationTable,
    what: str,
    remedy: str,
    rows: np.ndarray,
    with_box: bool = False,
) -> Problem:
    examples = table.told(rows[:EXAMPLES], with_box)
    return Problem(level, kind, table.path, what, remedy, len(rows), examples)
