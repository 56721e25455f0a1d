"""The one reader of COCO and LVIS files: of datasets, exemplars, metrics and the data's check.

Other tools write these files in many ways; here all readers agree on what a value means. Boxes are
COCO's (x, y, width, height) in pixels of the image file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from math import isfinite
from pathlib import PurePath
from typing import Any, TypeGuard

from mmdet.datasets.api_wrappers import COCO

from ..utils.near_names import quote_with_near, some
from .named_rows import repeated_names

# the lists of a COCO file, and what each entry of them must have
_KEYS = dict(images=('id',), annotations=(), categories=('id', 'name'))
REFERENCES = ('image_id', 'category_id', 'bbox')  # what each annotation must have
FLAGS = ('iscrowd', 'ignore')
_MEANING = {None: 0, 0: 0, 1: 1, '0': 0, '1': 1, 'false': 0, 'true': 1}
_LARGEST = sys.float_info.max
_ID = (int, float, str, type(None))


def read_coco(
    content: bytes, ann_file: str, unique_names: bool = True, annotated: bool = True
) -> dict:
    """A COCO or LVIS file as every reader takes it.

    - Annotations are numbered 1, 2, …: pycocotools and lvis-api take the id 0 for "not found", and
      mix up ids that repeat. Those of an image or a category that the file does not list, and
      those whose box is not finite, are left out. The id '7' may stand for 7, and 7 for '7'.
    - ``area`` is a finite number, by default width x height of the box. ``iscrowd``, and
      ``ignore`` where it is given, are 0 or 1.
    - ``file_name`` of an image is :func:`image_file`, ``width`` and ``height`` are numbers.

    Args:
        content: the file, JSON in UTF-8.
        ann_file: its path in messages.
        unique_names: refuse two categories of one name.
        annotated: refuse a file without ``annotations``, such as those of test sets, whose list is
            empty otherwise.

    Raises:
        ValueError: it is not such a file, or an entry lacks what is needed.
    """
    coco = parse_coco(content, ann_file, unique_names)
    if annotated and 'annotations' not in coco:
        raise ValueError(
            f'{ann_file} is not a COCO annotation file to train, evaluate or cut prompts with: it '
            "has no 'annotations'. To write detections in its images down, set format_only=True "
            'and outfile_prefix=PREFIX in the evaluator.'
        )
    given = coco.get('annotations', [])
    image_of, category_of = (id_finder(e['id'] for e in coco[k]) for k in ('images', 'categories'))
    if wrong := next(_wrong_entries(coco), None):
        raise ValueError(
            f'{ann_file}: {wrong}. mim run mmdet_dino_r1 check_data CONFIG lists all such entries.'
        )
    for image in coco['images']:
        image['file_name'] = image_file(image)
        image.update(width=as_number(image['width']), height=as_number(image['height']))
    for ann in given:
        ann['image_id'] = image_of(ann['image_id'])
        ann['category_id'] = category_of(ann['category_id'])
    coco['annotations'] = [
        ann
        for ann in given
        if None not in (ann['image_id'], ann['category_id']) and all(map(isfinite, ann['bbox']))
    ]
    for number, ann in enumerate(coco['annotations'], start=1):
        ann.update(id=number, area=area_of(ann), iscrowd=as_flag(ann.get('iscrowd')))
        if 'ignore' in ann:
            ann['ignore'] = as_flag(ann['ignore'])
    return coco


def parse_coco(content: bytes, ann_file: str, unique_names: bool = True) -> dict:
    """JSON in UTF-8 after :func:`check_coco`, its entries as they are; ValueError if it is none."""
    try:
        coco = json.loads(content.decode())
    except ValueError as error:
        raise ValueError(f'{ann_file} is not COCO JSON: {error}') from error
    check_coco(coco, ann_file, unique_names)
    return coco


def check_coco(coco: Any, ann_file: str, unique_names: bool = True) -> None:
    """ValueError where a parsed file lacks lists, ids or names, or names a category twice.

    ``annotations`` may be missing.
    """
    if wrong := next(_wrong_lists(coco), None):
        raise ValueError(f'{ann_file} is not a COCO annotation file: {wrong}.')
    twice = repeated_names([cat['name'] for cat in coco['categories']]) if unique_names else []
    if twice:
        names = ', '.join(map(repr, twice))
        raise ValueError(
            f'{ann_file} names categories more than once: {names}. Give each its own name.'
        )


def _wrong_lists(coco: Any) -> Iterator[str]:
    """What no reader can do with; ids are numbers or text, all of one kind, and names text."""
    if not isinstance(coco, dict):
        yield 'it is no {…}'
        return
    for key, needed in _KEYS.items():
        entries = coco.get(key, [])
        if key not in coco and needed:
            yield f'it has no {key!r}'
        elif not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            yield f'{key!r} is no list of {{…}}'
        for name in needed:
            values = [entry.get(name) for entry in entries]
            kinds = [str] if name == 'name' else [int, float, str]
            if wrong := [value for value in values if type(value) not in kinds]:
                yield f'{key!r} has an entry with {name}={wrong[0]!r}'
            if len({type(value) is str for value in values}) > 1:
                yield f'{key!r} has numbers and text as {name}'


def _wrong_entries(coco: dict) -> Iterator[str]:
    """Images and annotations that cannot be read."""
    for image in coco['images']:
        for key in ('width', 'height'):
            if as_number(image.get(key)) is None:
                yield f'image {image["id"]} has {key}={image.get(key)!r}, which is no number'
        try:
            image_file(image)
        except ValueError as error:
            yield str(error).rstrip('.')
    for ann in coco.get('annotations', []):
        if lacking := [key for key in REFERENCES if key not in ann]:
            wrong = f'lacks {lacking[0]!r}'
        elif not is_box(ann['bbox']):
            wrong = f'has bbox={ann["bbox"]!r}, which is not four numbers'
        elif not (isinstance(ann['image_id'], _ID) and isinstance(ann['category_id'], _ID)):
            wrong = 'has an image_id or category_id that is neither a number nor text'
        elif unclear := [key for key in FLAGS if as_flag(ann.get(key)) is None]:
            wrong = f'has {unclear[0]}={ann[unclear[0]]!r}, which is neither 0 nor 1'
        else:
            continue
        yield f'annotation {ann.get("id", "?")} of image {ann.get("image_id", "?")} {wrong}'


def id_finder(ids: Iterable[Hashable]) -> Callable[[Any], Any]:
    """A function that gives the id meant, which may be a number for a text, or None for none."""
    known: dict = {}
    for id_ in ids:
        known[id_] = known[str(id_)] = id_
    return lambda value: known.get(value if value in known else str(value))


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number that fits a float, NaN and infinity among them."""
    return type(value) is float or (type(value) is int and -_LARGEST <= value <= _LARGEST)


def as_number(value: Any) -> float | None:
    """A finite number, be it written as text; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
        value = int(value) if value.is_integer() else value
    return value if is_number(value) and isfinite(value) else None


def as_flag(value: Any) -> int | None:
    """0 or 1 of a number, a bool, a text or null; None for anything else."""
    if isinstance(value, list | dict):
        return None
    return _MEANING.get(value.lower() if isinstance(value, str) else value)


def is_box(value: object) -> TypeGuard[list[float]]:
    """Whether it is a list of four numbers, which need not be finite."""
    if type(value) is not list or len(value) != 4:
        return False
    return {*map(type, value)} == {float} or all(map(is_number, value))


def area_of(ann: dict) -> float:
    """Its ``area`` if that is a finite number, else width x height of its box, 0 without one."""
    area, box = ann.get('area'), ann.get('bbox')
    if is_number(area) and isfinite(area):
        return area
    return box[2] * box[3] if is_box(box) else 0


def image_file(image: dict) -> str:
    """Path of an entry of ``images`` below the image folder; ValueError where it names none.

    LVIS draws on both splits of COCO, and the split of an image stands only in its ``coco_url``
    (``http://images.cocodataset.org/train2017/x.jpg``), whatever its ``file_name`` says.
    """
    is_lvis = 'neg_category_ids' in image
    by_url = 'coco_url' in image and (is_lvis or 'file_name' not in image)
    name = image.get('coco_url' if by_url else 'file_name')
    if name is None:
        raise ValueError(f'image {image.get("id", "?")} has neither file_name nor coco_url.')
    if not isinstance(name, str):
        raise ValueError(f'image {image.get("id", "?")} has a file name that is no text: {name!r}.')
    return '/'.join(name.split('/')[-2:]) if by_url else name


def same_picture(file: str, other: str) -> bool:
    """Whether two paths may be one picture: another folder or suffix makes no other."""
    return PurePath(file).stem == PurePath(other).stem


def check_classes(wanted: Sequence[str], names: Sequence[str], ann_file: str) -> None:
    """ValueError where a name wanted is not among the file's, or is wanted twice."""
    if isinstance(wanted, str):
        raise ValueError(f'classes must be a list of names, got {wanted!r}.')
    if len(set(wanted)) < len(wanted):
        raise ValueError(f'classes must not repeat a name, got {list(wanted)}.')
    known = set(names)
    if lacking := [name for name in wanted if name not in known]:
        shown = [quote_with_near(name, names) for name in lacking[:10]]  # each takes a while
        many = f'{some([*shown, *lacking[10:]])}; it has {len(names)}'
        raise ValueError(f'{ann_file} has no categories named {many}.')


class CocoIndex(COCO):
    """pycocotools' index of ``coco``, a file as :func:`read_coco` returns it."""

    def __init__(self, coco: dict) -> None:
        super().__init__()
        self.dataset = coco
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs
