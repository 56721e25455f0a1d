"""Whether the classes of a config and of its annotation files fit together.

This package goes by names. mmdet's own ``CocoDataset`` drops in silence what does not match.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .annotation_table import AnnotationTable
from .data_problem import Problem, classes, error, near_names, note, number, some, warning

_IF_MEANT = 'Right if meant so; otherwise correct the names.'


def check_labels(
    table: AnnotationTable, wanted: Sequence[str], reader: str, by_id: bool = False
) -> list[Problem]:
    """Whether mmdet's ``CocoDataset`` gives the classes of a config the labels meant.

    Its labels are the positions of the *file's* categories, whatever the order of the config's
    classes. A class that the file lacks shifts them; a category that is no class is dropped.

    Args:
        table: the file.
        wanted: classes of the config's ``metainfo``, else of the dataset's type, in order.
        reader: the dataset, for messages: 'train_dataloader.dataset (CocoDataset)'.
        by_id: whether labels follow the ids, as in ``Objects365V1Dataset``.
    """
    order = sorted(table.categories) if by_id else table.categories
    names = list(dict.fromkeys(name for _, name in order))
    found = [name for name in names if name in set(wanted)]
    remedy = (
        "Set type='CocoJsonDataset' without metainfo, which takes the classes from the file, or "
        f'metainfo=dict(classes=({some(found or names, 20)},)).'
    )
    if not found:
        what = (
            f'none of the {len(wanted)} classes of {reader} is a category of the file, which has '
            f'{some(names)}: every box is dropped, and AP will be 0'
        )
        return [Problem('error', 'classes_all_unknown', table.path, what, remedy, len(wanted))]
    problems = _dropped(table, wanted, reader)
    if lacking := [name for name in wanted if name not in set(names)]:
        what = f'{classes(lacking)} of {reader} not in the file, so labels stand for other names'
        near = near_names(lacking, names)
        problems.append(error('classes_unknown', table.path, what, remedy, near))
    elif found != list(wanted):
        what = f'the file, which decides, has the classes of {reader} in another order'
        pairs = enumerate(zip(found, wanted, strict=False))
        shifted = [f'label {label}: {a!r}, not {b!r}' for label, (a, b) in pairs if a != b]
        problems.append(error('classes_order', table.path, what, remedy, shifted))
    return problems


def check_wanted(table: AnnotationTable, wanted: Sequence[str], reader: str) -> list[Problem]:
    """Whether ``CocoJsonDataset`` finds the classes it is asked for; arguments as above."""
    if lacking := [name for name in wanted if name not in set(table.names)]:
        what = f'{classes(lacking)} of {reader} not in the file'
        remedy = 'Correct the names, or leave metainfo out: the file then names the classes.'
        near = near_names(lacking, table.names)
        return [error('classes_unknown', table.path, what, remedy, near)]
    return _dropped(table, wanted, reader)


def _dropped(table: AnnotationTable, wanted: Sequence[str], reader: str) -> list[Problem]:
    counts = zip(table.names, table.count(table.is_read), strict=True)
    dropped = {name: count for name, count in counts if name not in set(wanted)}
    if not dropped:
        return []
    what = (
        f'{number(len(dropped), "category", "categories")} not among the classes of {reader}: '
        f'{number(sum(dropped.values()), "box", "boxes")} dropped'
    )
    near = near_names(list(dropped), wanted)
    return [warning('categories_dropped', table.path, what, _IF_MEANT, near)]


def check_num_classes(table: AnnotationTable, labels: int, num_classes: int) -> list[Problem]:
    """Whether the denoising label embedding has a row for each label of the training set.

    Args:
        table: the training set's file.
        labels: how many labels the training set has.
        num_classes: rows of the embedding, ``model.bbox_head.num_classes``.
    """
    if labels <= num_classes:
        return []
    what = f'{labels} classes to train on, but model.bbox_head.num_classes is {num_classes}'
    remedy = f'Set model.bbox_head.num_classes={labels}, the size of the label embedding.'
    return [Problem('error', 'num_classes', table.path, what, remedy, labels)]


def check_same_classes(train: AnnotationTable, val: AnnotationTable) -> list[Problem]:
    """How the classes of training and validation differ.

    Args:
        train: the file that is trained on.
        val: the file of the validation, which the problems are of.
    """
    trained, tested = _ids(train), _ids(val)
    problems = []
    if extra := [name for name in tested if name not in trained]:
        what = f'{classes(extra)} of {len(tested)} not in {train.path}: found by prompts alone'
        near = near_names(extra, trained)
        problems.append(warning('classes_not_trained', val.path, what, _IF_MEANT, near))
    if missing := [name for name in trained if name not in tested]:
        what = f'{classes(missing)} of {train.path} not in this file: never evaluated'
        near = near_names(missing, tested)
        problems.append(warning('classes_not_evaluated', val.path, what, _IF_MEANT, near))
    moved = [
        f'{name!r}: {id_}, there {trained[name]}'
        for name, id_ in tested.items()
        if trained.get(name, id_) != id_
    ]
    if moved:
        what = f'{classes(moved)} with another id than in {train.path}'
        remedy = "Names are matched, so it does no harm but to prompts with match='id'."
        problems.append(note('class_ids_differ', val.path, what, remedy, moved))
    return problems


def check_exemplars(
    prompts: AnnotationTable,
    test: AnnotationTable,
    tested: Sequence[str],
    match: str = 'name',
    skip_missing: bool = False,
) -> list[Problem]:
    """Whether every class of a test set has a box that can serve as its prompt.

    Args:
        prompts: the file that exemplars are taken from.
        test: the tested file.
        tested: names of the tested classes.
        match: 'name' or 'id', by which a category of one file is found in the other.
        skip_missing: whether classes without a prompt are allowed.
    """
    return [
        *_without_prompt(prompts, test, tested, match, skip_missing),
        *(_swapped(prompts, test) if match == 'id' else ()),
    ]


def _without_prompt(
    prompts: AnnotationTable,
    test: AnnotationTable,
    tested: Sequence[str],
    match: str,
    skip_missing: bool,
) -> Iterable[Problem]:
    counts = prompts.count(prompts.is_exemplar)
    with_boxes = {
        id_ if match == 'id' else name
        for (id_, name), count in zip(prompts.categories, counts, strict=True)
        if count
    }
    ids = _ids(test)
    without = [
        name for name in tested if (ids.get(name) if match == 'id' else name) not in with_boxes
    ]
    if not without:
        return
    what = (
        f'{classes(without)} of {len(tested)} in {test.path} without a box here that could be '
        'the prompt: never detected'
    )
    near = near_names(without, prompts.names)
    if skip_missing:
        yield warning('classes_without_prompt', prompts.path, what, _IF_MEANT, near)
        return
    remedy = (
        'Take prompts from another file (default_hooks.prompt_bank.bank.ann_file), or allow it: '
        'default_hooks.prompt_bank.bank.skip_missing=True.'
    )
    yield error('classes_without_prompt', prompts.path, what, remedy, near)


def _swapped(prompts: AnnotationTable, test: AnnotationTable) -> Iterable[Problem]:
    """Categories of one id whose names are those of different classes."""
    names, ids = dict(test.categories), _ids(test)
    swapped = [
        f'id {id_}: {name!r}, there {names[id_]!r}'
        for id_, name in prompts.categories
        if names.get(id_, name) != name and name in ids
    ]
    if swapped:
        what = f"{classes(swapped)} with the id of another class of {test.path}, and match='id'"
        remedy = "Remove match='id' from the source of the prompts."
        yield error('prompts_swapped', prompts.path, what, remedy, swapped)


def check_metric_file(dataset: AnnotationTable, metric: AnnotationTable, key: str) -> list[Problem]:
    """Whether the evaluator reads annotations of the images that are tested.

    Args:
        dataset: what the loader reads.
        metric: what the evaluator reads.
        key: config key of the evaluator's file.
    """
    known = set(metric.image_ids)
    unknown = [f'image {id_}' for id_ in dataset.image_ids if id_ not in known]
    if not unknown:
        return []
    what = f'{number(unknown, "image")} of {dataset.path} not in this file, which {key} names'
    remedy = f'Set {key}={dataset.path}'
    return [error('metric_of_other_images', metric.path, what, remedy, unknown)]


def _ids(table: AnnotationTable) -> dict:
    """Id of each category by name."""
    return {name: id_ for id_, name in table.categories}
