"""Whether the classes of a config and of its annotation files fit together.

Names: table = a parsed file; reader = a dataset in messages: 'train_dataloader.dataset
(CocoDataset)'; wanted = classes of its ``metainfo``, else of the dataset's type, in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from .annotation_table import AnnotationTable
from .data_problem import Problem, meant, number, problem, problems, quoted


def check_labels(
    table: AnnotationTable, wanted: Sequence[str], reader: str, by_id: bool = False
) -> list[Problem]:
    """Whether mmdet's ``CocoDataset`` gives the classes of a config the labels meant.

    Its labels are the positions of the *file's* categories, whatever the order of the config's
    classes; ``by_id`` in the order of their ids, as in ``Objects365V1Dataset``. A class that the
    file lacks shifts them; a category that is no class is dropped.
    """
    order = sorted(table.categories) if by_id else table.categories
    names = list(dict.fromkeys(name for _, name in order))
    found = [name for name in names if name in set(wanted)]
    remedy = (
        "Set type='CocoJsonDataset' without metainfo, which takes the classes from the file, or "
        f'metainfo=dict(classes=({quoted(found or names, 20)},)).'
    )
    if not found:
        words = dict(reader=reader, names=quoted(names), remedy=remedy)
        return [problem('classes_all_unknown', table.path, len(wanted), **words)]
    dropped, unknown = _differ(table, wanted, reader, ', so labels stand for other names', remedy)
    pairs = enumerate(zip(found, wanted, strict=False))
    shifted = [f'label {label}: {a!r}, not {b!r}' for label, (a, b) in pairs if a != b]
    words = dict(reader=reader, remedy=remedy)
    return dropped + (unknown or problems('classes_order', table.path, shifted, **words))


def check_wanted(table: AnnotationTable, wanted: Sequence[str], reader: str) -> list[Problem]:
    """Whether ``CocoJsonDataset`` finds the classes it is asked for, and what it leaves."""
    remedy = 'Correct the names, or leave metainfo out: the file then names the classes.'
    dropped, unknown = _differ(table, wanted, reader, '', remedy)
    return unknown or dropped


def _differ(
    table: AnnotationTable, wanted: Sequence[str], reader: str, so: str, remedy: str
) -> tuple[list[Problem], list[Problem]]:
    """Categories of the file that are no classes, and classes that the file lacks."""
    counts = zip(table.names, table.count(table.is_read), strict=True)
    dropped = {name: count for name, count in counts if name not in set(wanted)}
    lacking = [name for name in wanted if name not in set(table.names)]
    boxes = number(sum(dropped.values()), 'box', 'boxes')
    words = dict(reader=reader, boxes=boxes, so=so, remedy=remedy)
    return (
        problems('categories_dropped', table.path, dropped, meant(wanted), **words),
        problems('classes_unknown', table.path, lacking, meant(table.names), **words),
    )


def check_num_classes(table: AnnotationTable, labels: int, num_classes: int) -> list[Problem]:
    """Whether the denoising label embedding has a row for each of the training set's labels."""
    if labels <= num_classes:
        return []
    return [problem('num_classes', table.path, labels, rows=num_classes)]


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
        *problems('classes_without_prompt', prompts.path, without, tell, level, **words),
        *problems('prompts_swapped', prompts.path, swapped, **words),
    ]


def check_metric_file(dataset: AnnotationTable, metric: AnnotationTable, key: str) -> list[Problem]:
    """Whether the ``metric``'s file, named by ``key``, has the images of the ``dataset``'s."""
    known = set(metric.image_ids)
    lacking = [row for row, id_ in enumerate(dataset.image_ids) if id_ not in known]
    words = dict(tell=dataset.image_name, file=dataset.path, key=key)
    return problems('metric_of_other_images', metric.path, lacking, **words)


def _ids(table: AnnotationTable) -> dict:
    """Id of each category by name."""
    return {name: id_ for id_, name in table.categories}
