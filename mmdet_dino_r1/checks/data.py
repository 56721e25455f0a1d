"""The data of a config from all sides; ``stage`` may also be 'all' here."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmdet.datasets import CocoDataset, LVISV05Dataset, Objects365V1Dataset
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config

from ..config.class_lists import explain_other_classes
from ..config.exemplars import hook_bank
from ..config.tree import described, type_name, walk
from ..datasets.coco_json import CocoJsonDataset
from ..datasets.support_list import read_support_list
from ..evaluation import CocoJsonMetric
from .annotation_table import AnnotationTable
from .class_check import (
    check_crowds,
    check_empty,
    check_exemplars,
    check_labels,
    check_metric_file,
    check_same_classes,
    check_support,
    found_classes,
)
from .data_check import check_file
from .data_problem import LEVELS, Problem, meant, problem, problems, report_problems
from .image_check import PLAIN, check_images
from .paths import SPLITS, Member, datasets_of, exemplars

# A million boxes, some 190 MB, take 9 s; mmdet parses them again in every process.
MAX_BYTES = 200_000_000


def explain_data(cfg: Config, args: argparse.Namespace, stage: str) -> str | None:
    """What is wrong with a training's annotation files; what is merely odd is printed.

    Of a test, whether there is anything to evaluate, and whether lists of exemplars can be read.
    """
    if not cfg.get('check_data', True):
        return None
    if stage == 'test':
        problems = _unannotated(cfg) + _broken_lists(cfg)
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
        is_one_set = split == 'train' or 'metrics' not in _evaluator(cfg, split)
        if is_one_set and (said := explain_other_classes(lists, split)):
            file, what, remedy = said
            found.append(problem('labels_differ', file, what=what, remedy=remedy))
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
        skips, match = hook_bank(cfg).get('skip_missing'), source.cfg.get('match', 'name')
        found += check_exemplars(prompts, table, labels, match, skips)
        if 'support' in source.cfg:
            found += check_support(prompts, table, labels, match)
    return table, labels, found


def _trained_on(files: _Files) -> list[Problem]:
    """Images that are tested and trained on."""
    images = defaultdict(dict)  # by use: the path of each image, and the file that lists it
    for reader in files.readers:
        if (table := files.tables[reader.path]) is not None:
            folder = os.path.normpath(reader.folder)
            images[reader.use] |= dict.fromkeys(
                (os.path.join(folder, name) for name in table.files), table.path
            )
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
    found = []
    one_each = type_name(_evaluator(cfg, split)) == 'MultiDatasetsEvaluator'
    for key, node, is_mmdets in _metrics(cfg, split):
        own = 'ann_file' not in node  # a group's evaluator gives it
        use, by = 'format' if node.get('format_only') else 'metric', 'CocoMetric' * is_mmdets
        place = key.rpartition('.')[2]  # among metrics of other kinds, too
        place = int(place) if place.isdecimal() else 0
        for member, table, labels in tested[place : place + 1] if one_each else tested:
            metric = files.read(member.cfg if own else node, use, by)
            if not own and labels and metric is not None and metric is not table:
                name = f'{key}.ann_file'
                found += check_metric_file(table, labels, metric, name, not is_mmdets)
    return found


def _evaluator(cfg: Config, split: str) -> dict:
    evaluator = cfg.get(f'{split}_evaluator')
    return evaluator if isinstance(evaluator, dict) else {}


def _unannotated(cfg: Config) -> list[Problem]:
    """The files that a test is to evaluate with, but has no annotations in."""
    tested, found = [member.cfg for member in datasets_of(cfg, 'test')], {}
    for _, node, _ in _metrics(cfg, 'test'):
        nodes = [node] if 'ann_file' in node else tested  # a group's evaluator gives it
        for one in () if node.get('format_only') else nodes:
            path = os.path.join(one.get('data_root') or '', one.get('ann_file') or '')
            # a word that is not there needs no parsing, which would take seconds
            if os.path.isfile(path) and b'"annotations"' not in Path(path).read_bytes():
                found[path] = problem('not_annotated', path)
    return [*found.values()]


def _broken_lists(cfg: Config) -> list[Problem]:
    """The lists of exemplars that a test cannot read; it would first encode those before them."""
    files = _Files(MAX_BYTES)
    for member in datasets_of(cfg, 'test'):
        if (source := exemplars(cfg, member)) and 'support' in source.cfg:
            files.read(source.cfg, 'prompts')
    return [item for item in files.unread if item.is_error]


class _Reader(NamedTuple):
    """A dataset or metric that reads an annotation file."""

    path: str
    use: str  # 'train', 'val', 'test', 'prompts', 'metric' or 'format'
    by_mmdet: str  # the name of mmdet's own class, if that is what reads
    cfg: dict
    folder: str  # of the images
    loader: dict  # the first step of its pipeline


class _Files:
    """Annotation files, each parsed once, and all who read them."""

    def __init__(self, max_bytes: float) -> None:
        self.max_bytes = max_bytes
        self.tables: dict[str, AnnotationTable | None] = {}  # by path
        self.readers: list[_Reader] = []
        self.unread: list[Problem] = []

    def read(self, cfg: dict, use: str, by_mmdet: str = '') -> AnnotationTable | None:
        """The parsed file of a dataset or metric, None if there is none that can be read."""
        root, prefix = cfg.get('data_root') or '', cfg.get('data_prefix') or {}
        file = cfg.get('support') or cfg.get('ann_file') or ''
        path = os.path.normpath(os.path.join(root, file))
        if path not in self.tables:
            parse = self._parse
            if 'support' in cfg:
                parse = partial(self._parse_list, unique_names=cfg.get('match') != 'id')
            self.tables[path] = parse(path) if os.path.isfile(path) else None
        step = (cfg.get('pipeline') or [PLAIN])[0]
        loader = {key: value for key, value in step.items() if value is not None}
        folder = os.path.join(root, prefix.get('img', ''))
        self.readers.append(_Reader(path, use, by_mmdet, cfg, folder, loader))
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

    def _parse_list(self, path: str, unique_names: bool) -> AnnotationTable | None:
        try:
            coco, left_out = read_support_list(Path(path).read_bytes(), path, unique_names)
        except ValueError as error:
            said = str(error).removeprefix(path).lstrip(', ')
            self.unread.append(problem('support_broken', path, error=said))
            return None
        self.unread += problems('support_flat', path, left_out)
        return AnnotationTable(coco, path)

    def used(self) -> list[tuple[AnnotationTable, list[str]]]:
        uses = defaultdict(dict)  # in order
        for reader in self.readers:
            uses[reader.path][reader.use] = None
        tables = self.tables.items()
        return [(table, [*uses[path]]) for path, table in tables if table is not None]

    def problems(self, each_image: bool) -> list[Problem]:
        """Those of the files by themselves and of their images."""
        tables = [table for table, _ in self.used()]
        found = [item for table in tables for item in check_crowds(table)] + check_empty(tables)
        lists = {reader.path for reader in self.readers if 'support' in reader.cfg}  # all is said
        for table, uses in self.used():
            by_mmdet = {reader.by_mmdet for reader in self.readers if reader.path == table.path}
            found += check_file(table, uses, by_mmdet) if table.path not in lists else []
        images = defaultdict(list)  # who reads the same ones in the same way
        for reader in self.readers:
            if reader.use not in ('metric', 'format') and os.path.isdir(reader.folder or '.'):
                images[reader.path, reader.folder, repr(reader.loader)].append(reader)
        for readers in images.values():
            if (table := self.tables[readers[0].path]) is not None:
                found += _check_images(table, readers, each_image)
        return self.unread + found


def _check_images(
    table: AnnotationTable, readers: Sequence[_Reader], each_image: bool
) -> list[Problem]:
    """Problems of the images that ``readers`` read in one way."""

    def needs_boxes(reader: _Reader) -> bool:
        leaves_out = (reader.cfg.get('filter_cfg') or {}).get('filter_empty_gt', False)
        return reader.use == 'prompts' or (reader.use == 'train' and leaves_out)

    is_part = not each_image and all(map(needs_boxes, readers))
    rows = np.unique(table.image[table.image >= 0]).tolist() if is_part else None
    # prompts name by themselves what they cannot read
    skips = [reader.cfg.get('skip_unreadable') for reader in readers if reader.use != 'prompts']
    level = 'warning' if skips and all(skips) else ''
    return check_images(table, readers[0].folder, readers[0].loader, each_image, rows, level)


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
    labels = found_classes(table, wanted, by)
    is_fixed = labels and member.cfg.get('fixed_classes')
    found = check_labels(table, labels if is_fixed else wanted, reader, by)
    return wanted if is_fixed and split == 'train' else labels, found
