"""Whether the classes of a config and of its annotation files fit together.

Names: table = a parsed file; reader = a dataset in messages: 'train_dataloader.dataset
(CocoDataset)'; wanted = classes of its ``metainfo``, else of the dataset's type, in order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ..structures.coco_file import same_picture
from .annotation_table import AnnotationTable
from .data_problem import Problem, meant, number, problem, problems, quoted


def found_classes(table: AnnotationTable, wanted: Sequence[str], by: str = 'file') -> list[str]:
    """Those of the ``wanted`` classes that the file has; ``by`` as of :func:`check_labels`."""
    order = sorted(table.categories) if by == 'id' else table.categories
    return [name for name in dict.fromkeys(name for _, name in order) if name in set(wanted)]


def check_labels(
    table: AnnotationTable, wanted: Sequence[str], reader: str, by: str = 'file'
) -> list[Problem]:
    """Whether the dataset gives the classes ``wanted`` the labels meant.

    With mmdet's ``CocoDataset`` the order of the file's categories decides, with ``by='id'`` that
    of their ids (``Objects365V1Dataset``): a class that the file lacks shifts all labels. With
    ``by='name'`` (``CocoJsonDataset``) names alone matter.
    """
    names, found = table.names, found_classes(table, wanted, by)
    so, remedy = '', 'Correct the names, or leave metainfo out: the file then names the classes.'
    if by != 'name':
        so = ', so labels stand for other names'
        remedy = (
            "Set type='CocoJsonDataset' without metainfo, which takes the classes from the file, "
            f'or metainfo=dict(classes=({quoted(found or names, 20)},)).'
        )
    counts = zip(table.names, table.count(table.is_read), strict=True)
    left = {name: count for name, count in counts if name not in set(wanted)}
    lacking = [name for name in wanted if name not in set(names)]
    boxes = number(sum(left.values()), 'box', 'boxes')
    words = dict(reader=reader, names=quoted(names), boxes=boxes, so=so, remedy=remedy)
    dropped = problems('categories_dropped', table.path, left, meant(wanted), **words)
    unknown = problems('classes_unknown', table.path, lacking, meant(names), **words)
    if by == 'name':
        return unknown or dropped
    if not found:
        return [problem('classes_all_unknown', table.path, len(wanted), **words)]
    pairs = enumerate(zip(found, wanted, strict=False))
    shifted = [f'label {label}: {a!r}, not {b!r}' for label, (a, b) in pairs if a != b]
    return dropped + (unknown or problems('classes_order', table.path, shifted, **words))


def check_same_classes(train: AnnotationTable, val: AnnotationTable) -> list[Problem]:
    """How the classes of the ``train`` and the ``val`` file differ."""
    trained, tested = _ids(train), _ids(val)
    extra = [name for name in tested if name not in trained]
    missing = [name for name in trained if name not in tested]
    moved = [
        f'{name!r}: {id_}, there {trained[name]}'
        for name, id_ in tested.items()
        if trained.get(name, id_) != id_
    ]
    words = dict(file=train.path, of=len(tested))
    return [
        *problems('classes_not_trained', val.path, extra, meant(trained), **words),
        *problems('classes_not_evaluated', val.path, missing, meant(tested), **words),
        *problems('class_ids_differ', val.path, moved, **words),
    ]


def check_exemplars(
    prompts: AnnotationTable,
    test: AnnotationTable,
    tested: Sequence[str],
    match: str = 'name',
    skip_missing: bool = False,
) -> list[Problem]:
    """Whether every class ``tested`` has a box among the ``prompts`` that can serve as its prompt.

    ``match`` is 'name' or 'id', by which a category of one file is found in the other.
    """
    ids, by_id = _ids(test), match == 'id'
    counts = zip(prompts.categories, prompts.count(prompts.is_exemplar), strict=True)
    with_boxes = {id_ if by_id else name for (id_, name), count in counts if count}
    without = [name for name in tested if (ids.get(name) if by_id else name) not in with_boxes]
    boxes = dict(zip(test.names, test.count(test.is_read), strict=True))
    # as `classes_without_boxes` of the dataset: what has no box there does not count
    needed = [name for name in without if boxes.get(name) or not any(boxes.values())]
    names = dict(test.categories)
    swapped = [  # categories of one id whose names are those of different classes
        f'id {id_}: {name!r}, there {names[id_]!r}'
        for id_, name in prompts.categories
        if by_id and names.get(id_, name) != name and name in ids
    ]
    allow = ', or allow it: default_hooks.prompt_bank.bank.skip_missing=True'
    words = dict(file=test.path, of=len(tested), or_allow='' if skip_missing else allow)
    level, tell = 'warning' if skip_missing else '', meant(prompts.names)
    return [
        *problems('classes_without_prompt', prompts.path, needed, tell, level, **words),
        *problems('prompts_swapped', prompts.path, swapped, **words),
    ]


def check_support(
    prompts: AnnotationTable, test: AnnotationTable, tested: Sequence[str], match: str
) -> list[Problem]:
    """Classes of a list of exemplars that are not ``tested``; ``match`` as above."""
    known = set(_ids(test).values() if match == 'id' else tested)
    untested = [
        name for id_, name in prompts.categories if (id_ if match == 'id' else name) not in known
    ]
    return problems('support_untested', prompts.path, untested, meant(tested), file=test.path)


def check_metric_file(
    tested: AnnotationTable,
    labels: Sequence[str],
    metric: AnnotationTable,
    key: str,
    by_name: bool = True,
) -> list[Problem]:
    """Whether the ``metric``'s file, named by ``key``, tells of the set ``tested`` the same.

    ``labels`` are the tested classes. Without ``by_name``, as in mmdet's ``CocoMetric``, they stand
    for categories in the order of the metric's file.
    """
    there = {id_: row for row, id_ in enumerate(metric.image_ids)}
    common = [(row, there[id_]) for row, id_ in enumerate(tested.image_ids) if id_ in there]
    lacking = [row for row, id_ in enumerate(tested.image_ids) if id_ not in there]
    others = [row for row, other in common if _differ(tested, row, metric, other)]
    missing = [name for name in labels if name not in set(metric.names)]
    moved, unequal = [], []
    if not by_name and not missing:
        there_in_order = found_classes(metric, labels)
        moved = [a for a, b in zip(labels, there_in_order, strict=False) if a != b]
    if not others and tested.is_annotated and metric.is_annotated:
        boxes, boxes_there = _count_boxes(tested, labels), _count_boxes(metric, labels)
        for row, _ in common:
            count, other = (found[tested.image_ids[row]] for found in (boxes, boxes_there))
            if count != other:
                counts = f'{count.total()}, there {other.total()}'
                unequal.append(f'{tested.image_name(row)}: {counts}')
    words = dict(file=tested.path, key=key)
    return [
        *problems('metric_of_other_images', metric.path, lacking, tested.image_name, **words),
        *problems('metric_of_other_pictures', metric.path, others, tested.image_name, **words),
        *problems('metric_lacks_classes', metric.path, missing, meant(metric.names), **words),
        *problems('metric_class_order', metric.path, moved, repr, **words),
        *problems('metric_of_other_boxes', metric.path, unequal, **words),
    ]


def _differ(table: AnnotationTable, row: int, other: AnnotationTable, other_row: int) -> bool:
    """Whether one image id stands for images of other names or sizes."""
    files = table.files[row], other.files[other_row]
    return not same_picture(*files) or bool((table.sizes[row] != other.sizes[other_row]).any())


def _count_boxes(table: AnnotationTable, labels: Sequence[str]) -> dict:
    """By image id, how many boxes each class has."""
    counts, known = defaultdict(Counter), (table.image >= 0) & (table.category >= 0)
    names, wanted = table.names, set(labels)
    for image, category in zip(
        table.image[known].tolist(), table.category[known].tolist(), strict=True
    ):
        if (name := names[category]) in wanted:
            counts[table.image_ids[image]][name] += 1
    return counts


def check_empty(tables: Sequence[AnnotationTable]) -> list[Problem]:
    """Categories without a box: in one of a config's files, or in all, as Roboflow's root is."""
    counts = [
        dict(zip(table.names, table.count(table.is_read | table.is_exemplar), strict=True))
        for table in tables
    ]
    there = {name for count in counts for name, boxes in count.items() if boxes}
    found = []
    for table, count in zip(tables, counts, strict=True):
        empty = [name for name, boxes in count.items() if not boxes and name in there]
        if any(count.values()):  # else it is said that it has no box at all
            found += problems('category_empty', table.path, empty, repr, of=len(count))
    unused = dict.fromkeys(name for count in counts for name in count if name not in there)
    if not there or not unused:
        return found
    files = ', '.join(table.path for table in tables if not unused.keys().isdisjoint(table.names))
    return found + problems('category_unused', files, unused, repr)


def check_crowds(table: AnnotationTable) -> list[Problem]:
    """Crowds and ignored boxes, where they are many: over a quarter, which no public set has.

    COCO has 1 % and Pascal VOC, whose difficult objects are ignored ones, up to 20 %.
    """
    rows = np.flatnonzero(table.crowd)
    if 4 * len(rows) <= len(table):
        return []
    level = 'error' if len(rows) == len(table) else ''
    return problems('crowds', table.path, rows, table.name, level, of=len(table))


def _ids(table: AnnotationTable) -> dict:
    """Id of each category by name."""
    return {name: id_ for id_, name in table.categories}
