"""Whether datasets that a loader reads together can be one: by their labels and image ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Dataset

from ..utils.near_names import some


def datasets_below(dataset: Dataset) -> Iterator[Dataset]:
    """The innermost datasets, through ``ConcatDataset``, ``RepeatDataset`` and other wrappers."""
    inner = getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    for child in inner if isinstance(inner, list) else [inner]:
        yield from [dataset] if child is None else datasets_below(child)


def one_class_list(dataset: Dataset, split: str = 'train') -> tuple[str, ...]:
    """Class names of a loader's dataset in label order, () where it names none.

    Raises:
        ValueError: labels of its members stand for other classes; the files are named.
    """
    lists = []
    for member in datasets_below(dataset):
        if classes := tuple(getattr(member, 'metainfo', {}).get('classes') or ()):
            lists.append((getattr(member, 'ann_file', '') or type(member).__name__, classes))
    if wrong := explain_other_classes(lists, split):
        raise ValueError('{}: {}. {}'.format(*wrong))
    return lists[0][1] if lists else ()


def explain_other_classes(
    lists: Sequence[tuple[str, Sequence[str]]], split: str
) -> tuple[str, str, str] | None:
    """The first of several files whose labels stand for other classes than those of the first one.

    Args:
        lists: file and class names, in label order, of each dataset that a loader reads.
        split: 'train', 'val' or 'test', which decides on the remedy.

    Returns:
        The file, what is wrong with it and the remedy; None where nothing is.
    """
    differing = [item for item in lists if tuple(item[1]) != tuple(lists[0][1])]
    if not differing:
        return None
    (first, of_first), (file, classes) = lists[0], differing[0]
    here, there = (some([*map(repr, of_one)], 20) for of_one in (classes, of_first))
    spelt: dict[str, str] = {}
    names = dict.fromkeys(name for _, of_one in lists for name in of_one)
    pairs = ((spelt.setdefault(name.strip().casefold(), name), name) for name in names)
    alike = [f'; {one!r} and {other!r} may be one class' for one, other in pairs if one != other]
    what = (
        f'its labels stand for {here}, those of {first} for {there}, and {split}_dataloader '
        f'reads both{"".join(alike[:1])}'
    )
    remedy = (
        "Give each of these datasets type='CocoJsonDataset', fixed_classes=True, "
        f'metainfo=dict(classes=({", ".join(map(repr, names))},)).'
    )
    if split != 'train':
        remedy = (
            f"Test each with its own classes: type='DatasetGroup' in {split}_dataloader, "
            f"{split}_evaluator=dict(type='DatasetGroupEvaluator', "
            "metrics=dict(type='CocoJsonMetric', metric='bbox'))."
        )
    return file, what, remedy


def check_image_ids(dataset: Dataset, split: str) -> None:
    """ValueError where datasets tested as one share an image id, by which COCO's metrics go."""
    members, owner = list(datasets_below(dataset)), {}
    for member in members if len(members) > 1 else ():
        ids = {member.get_data_info(index).get('img_id') for index in range(len(member))}
        if shared := sorted(ids & owner.keys(), key=str):
            raise ValueError(
                f'{member.ann_file}: {len(shared)} image ids, such as {shared[0]}, are also in '
                f'{owner[shared[0]]}, and {split}_dataloader reads both: detections of two images '
                "would be counted as those of one. Test each by itself, by type='DatasetGroup' and "
                "type='DatasetGroupEvaluator'."
            )
        owner |= dict.fromkeys(ids, member.ann_file)
