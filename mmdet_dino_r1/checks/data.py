"""The data of a config from all sides; ``stage`` may also be 'all' here."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mmdet.datasets import CocoDataset, LVISV05Dataset, Objects365V1Dataset
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config

from ..config.exemplars import hook_bank
from ..config.tree import walk
from ..datasets.coco_json import CocoJsonDataset
from ..evaluation import CocoJsonMetric
from .annotation_table import AnnotationTable
from .class_check import (
    check_crowds,
    check_empty,
    check_exemplars,
    check_labels,
    check_metric_file,
    check_one_list,
    check_same_classes,
)
from .config_tree import described, type_name
from .data_check import check_file
from .data_problem import LEVELS, Problem, meant, problem, problems, report_problems
from .image_check import PLAIN, check_images
from .paths import SPLITS, Member, datasets_of, exemplars

# A million boxes, some 190 MB, take 9 s; mmdet parses them again in every process.
MAX_BYTES = 200_000_000


def explain_data(cfg: Config, args: argparse.Namespace, stage: str) -> str | None:
    """What is wrong with a training's annotation files; what is merely odd is printed.

    Of a test, whether there is anything to evaluate.
    """
    if not cfg.get('check_data', True):
        return None
    if stage == 'test':
        problems = _unannotated(cfg)
        return report_problems(problems, args.config) if problems else None
    problems = find_problems(cfg, stage)
    said = report_problems(problems, args.config)
    if any(item.is_error for item in problems):
        return f'{said}\nTo start nevertheless: --cfg-options check_data=False'
    if problems:
        print(f'mmdet_dino_r1: {said}', file=sys.stderr)
    return None


def find_problems(cfg: Config, stage: str) -> list[Problem]:
    """What is wrong with the data, errors first; without files over 200 MB, for every start."""
    return check(cfg, stage, max_bytes=MAX_BYTES)[1]


def check(
    cfg: Config, stage: str, each_image: bool = False, max_bytes: float = float('inf')
) -> tuple[list[tuple[AnnotationTable, list[str]]], list[Problem]]:
    """The parsed files with what they are used for, and the problems, errors first.

    Annotation files that are missing, remote or larger than ``max_bytes`` are not read.
    """
    files, found, single, trained = _Files(max_bytes), [], {}, ()
    for split in SPLITS[stage]:
        tested, lists = [], []
        for member in datasets_of(cfg, split):
            table, labels, wrong = _check_dataset(files, cfg, split, member)
            tested.append((member, table, labels))
            lists += [(table.path, labels)] if labels else []
            found += wrong
        # an evaluator of its own, such as DatasetGroupEvaluator, has a metric for each member
        if split == 'train' or 'metrics' not in _evaluator(cfg, split):
            found += check_one_list(lists, split)
        trained = lists[0] if lists and split == 'train' else trained
        single[split] = tested[0][1] if len(tested) == 1 else None
        found += _check_metrics(files, cfg, split, tested)
    train, val = single.get('train'), single.get('val')
    if None not in (train, val) and train is not val:
        found += check_same_classes(train, val)
    if trained:
        known = {name for table, _ in files.used() for name in table.names}
        lacking = [name for name in trained[1] if name not in known]  # with fixed_classes
        found += problems('classes_nowhere', trained[0], lacking, meant(known))
    found += _trained_on(files)
    # val and test are often one set
    found = list(dict.fromkeys(files.problems(each_image) + found))
    return files.used(), sorted(found, key=lambda item: LEVELS.index(item.level))


def _check_dataset(
    files: _Files, cfg: Config, split: str, member: Member
) -> tuple[AnnotationTable | None, Sequence[str], list[Problem]]:
    """The parsed file of a dataset, its classes by label, and what is wrong with them.

    The first is None where the file is not read; without labels nothing is to be said of them.
    """
    kind = member.cfg.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not issubclass(kind or object, CocoDataset):
        return None, (), []  # unknown, or of another format
    source = None
    with suppress(ValueError):  # the check of the config says why
        source = exemplars(cfg, member) if split != 'train' else None
    as_tested = dict(pipeline=member.cfg.get('pipeline'))
    prompts = files.read(source.cfg | as_tested, 'prompts') if source else None
    by = '' if issubclass(kind, CocoJsonDataset) else 'CocoDataset'
    if (table := files.read(member.cfg, split, by)) is None:
        return None, (), []
    labels, found = _labels(table, member, kind, split)
    if any(item.is_error for item in found):
        return table, (), found  # what follows from them is no news
    rows = ((cfg.get('model') or {}).get('bbox_head') or {}).get('num_classes')
    if split == 'train' and rows is not None and len(labels) > rows:
        found.append(problem('num_classes', table.path, len(labels), rows=rows))
    if prompts is not None:
        skips = hook_bank(cfg).get('skip_missing')
        found += check_exemplars(prompts, table, labels, source.cfg.get('match', 'name'), skips)
    return table, labels, found


def _trained_on(files: _Files) -> list[Problem]:
    """Images that are tested and trained on."""
    images: dict = {use: {} for use in ('train', 'val', 'test', 'prompts')}  # each with its file
    for (path, folder, _), readers in files.folders.items():
        names = table.files if (table := files.tables[path]) else ()
        for use, _ in readers:
            images[use] |= {os.path.join(os.path.normpath(folder), name): path for name in names}
    found = []
    for use in ('val', 'test'):
        if shared := [image for image in images[use] if image in images['train']]:
            words = dict(of=len(images[use]), file=images['train'][shared[0]])
            found += problems('image_trained_on', images[use][shared[0]], shared, **words)
    return found


def _metrics(cfg: Config, split: str) -> list[tuple[str, dict, bool]]:
    """The metrics in COCO's way that read a file, below lists and wrappers.

    Each as its dotted key, its config and whether it is mmdet's own.
    """
    found = []
    for key, node in walk(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
        kind = node.get('type') if isinstance(node, dict) else None
        kind = METRICS.get(kind) if isinstance(kind, str) else kind
        if isinstance(kind, type) and issubclass(kind, CocoMetric) and kind is not LVISMetric:
            found.append((key, node, not issubclass(kind, CocoJsonMetric)))
    return found


def _check_metrics(
    files: _Files,
    cfg: Config,
    split: str,
    tested: Sequence[tuple[Member, AnnotationTable | None, Sequence[str]]],
) -> list[Problem]:
    """Whether the evaluators of a split read what its datasets, ``tested``, read."""
    found, evaluators = [], _metrics(cfg, split)
    one_each = type_name(_evaluator(cfg, split)) == 'MultiDatasetsEvaluator'
    for number, (key, node, by_mmdet) in enumerate(evaluators):
        by = 'CocoMetric' * by_mmdet
        use = 'format' if node.get('format_only') else 'metric'
        for index, (member, table, labels) in enumerate(tested):
            if one_each and index != number:
                continue
            own = 'ann_file' not in node  # a group's evaluator gives it
            metric = files.read(member.cfg if own else node, use, by)
            if own or not labels or metric is None or metric is table:
                continue
            found += check_metric_file(table, labels, metric, f'{key}.ann_file', not by_mmdet)
    return found


def _evaluator(cfg: Config, split: str) -> dict:
    evaluator = cfg.get(f'{split}_evaluator')
    return evaluator if isinstance(evaluator, dict) else {}


def _unannotated(cfg: Config) -> list[Problem]:
    """The files that a test is to evaluate with, but has no annotations in."""
    found = []
    for _, node, _ in _metrics(cfg, 'test'):
        path = node.get('ann_file')
        if not node.get('format_only') and isinstance(path, str) and os.path.isfile(path):
            # a word that is not there needs no parsing, which would take seconds
            if b'"annotations"' not in Path(path).read_bytes():
                found.append(problem('not_annotated', path))
    return found


@dataclass
class _Files:
    """Annotation files, each read once."""

    max_bytes: float
    tables: dict[str, AnnotationTable | None] = field(default_factory=dict)
    uses: dict[str, dict[str, None]] = field(default_factory=dict)  # in order
    by_mmdet: dict[str, set[str]] = field(default_factory=dict)  # its own classes that read it
    folders: dict[tuple[str, ...], list[tuple[str, dict]]] = field(default_factory=dict)
    unread: list[Problem] = field(default_factory=list)

    def read(self, dataset: dict, use: str, by_mmdet: str = '') -> AnnotationTable | None:
        """The parsed file of a dataset, None if there is none that can be read; for a ``use``.

        ``by_mmdet`` names mmdet's own class that reads it.
        """
        root = dataset.get('data_root') or ''
        path = os.path.normpath(os.path.join(root, dataset.get('ann_file') or ''))
        if path not in self.tables:
            self.tables[path] = self._parse(path) if os.path.isfile(path) else None
        if use not in ('metric', 'format'):
            prefix = (dataset.get('data_prefix') or {}).get('img', '')
            readers = (path, os.path.join(root, prefix), repr(_loader(dataset)))
            self.folders.setdefault(readers, []).append((use, dataset))
        self.uses.setdefault(path, {})[use] = None
        self.by_mmdet.setdefault(path, set()).add(by_mmdet)
        return self.tables[path]

    def _parse(self, path: str) -> AnnotationTable | None:
        if (size := os.path.getsize(path)) > self.max_bytes:
            self.unread.append(problem('not_read', path, size=size / 1e6))
            return None
        try:
            # as UTF-8, which pycocotools expects too, whatever else `json` makes of bytes
            return AnnotationTable(json.loads(Path(path).read_bytes().decode()), path)
        except ValueError as error:
            said = str(error).removeprefix(f'{path} ')
            self.unread.append(problem('not_coco', path, error=said))
            return None

    def used(self) -> list[tuple[AnnotationTable, list[str]]]:
        tables = self.tables.items()
        return [(table, [*self.uses[path]]) for path, table in tables if table is not None]

    def problems(self, each_image: bool) -> list[Problem]:
        """Those of the files by themselves and of their images."""
        tables = [table for table, _ in self.used()]
        found = [item for table in tables for item in check_crowds(table)] + check_empty(tables)
        for table, uses in self.used():
            found += check_file(table, uses, self.by_mmdet[table.path])
        for (path, folder, _), readers in self.folders.items():
            if (table := self.tables[path]) is not None and os.path.isdir(folder or '.'):
                rows = None if each_image else _rows_read(table, readers)
                level = 'warning' if _all_skip_unreadable(readers) else ''
                found += check_images(
                    table, folder, _loader(readers[0][1]), each_image, rows, level
                )
        return self.unread + found


def _loader(dataset: dict) -> dict:
    """The first step of its pipeline."""
    step = (dataset.get('pipeline') or [PLAIN])[0]
    return {key: value for key, value in step.items() if value is not None}


def _rows_read(table: AnnotationTable, readers: list[tuple[str, dict]]) -> list[int] | None:
    """The images with annotations, if nobody reads the others; else None."""
    for use, dataset in readers:
        is_filtered = (dataset.get('filter_cfg') or {}).get('filter_empty_gt')
        if use in ('val', 'test') or (use == 'train' and not is_filtered):
            return None
    return [*dict.fromkeys(table.image[table.image >= 0].tolist())]


def _all_skip_unreadable(readers: list[tuple[str, dict]]) -> bool:
    """Whether training goes on without them; prompts name by themselves what they cannot read."""
    skips = [dataset.get('skip_unreadable', False) for use, dataset in readers if use != 'prompts']
    return bool(skips) and all(skips)


def _labels(
    table: AnnotationTable, member: Member, kind: type, split: str
) -> tuple[Sequence[str], list[Problem]]:
    """Names of the classes that become labels, and what is wrong with those of the config."""
    reader = described(member.key, member.cfg)
    wanted = kind._load_metainfo(member.cfg.get('metainfo')).get('classes')
    if isinstance(wanted, str):
        return (), [problem('classes_no_list', table.path, reader=reader, wanted=wanted)]
    if wanted is None or issubclass(kind, LVISV05Dataset):  # the classes are the file's
        return table.names, []
    by = 'name' if issubclass(kind, CocoJsonDataset) else 'file'
    by = 'id' if issubclass(kind, Objects365V1Dataset) else by
    names = [name for _, name in sorted(table.categories)] if by == 'id' else table.names
    labels = [name for name in names if name in set(wanted)]
    if labels and member.cfg.get('fixed_classes'):
        found = check_labels(table, labels, reader, by)
        return list(wanted) if split == 'train' else labels, found
    return labels, check_labels(table, wanted, reader, by)
