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
from ..datasets.coco_json import CocoJsonDataset
from ..evaluation import CocoJsonMetric
from .annotation_table import AnnotationTable
from .class_check import check_exemplars, check_labels, check_metric_file, check_same_classes
from .config_tree import described, type_name, walk
from .data_check import check_file, check_images
from .data_problem import LEVELS, Problem, problem, report_problems
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
    files, found, single = _Files(max_bytes), [], {}
    for split in SPLITS[stage]:
        tested = []
        for member in datasets_of(cfg, split):
            table, problems = _check_dataset(files, cfg, split, member)
            tested.append((member, table))
            found += problems
        single[split] = tested[0][1] if len(tested) == 1 else None
        found += _check_metrics(files, cfg, split, tested)
    train, val = single.get('train'), single.get('val')
    if None not in (train, val) and train is not val:
        found += check_same_classes(train, val)
    # val and test are often one set
    found = list(dict.fromkeys(files.problems(each_image) + found))
    return files.used(), sorted(found, key=lambda item: LEVELS.index(item.level))


def _check_dataset(
    files: _Files, cfg: Config, split: str, member: Member
) -> tuple[AnnotationTable | None, list[Problem]]:
    """The parsed file of a dataset, None if it is not read, and what is wrong with its classes."""
    kind = member.cfg.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not issubclass(kind or object, CocoDataset):
        return None, []  # unknown, or of another format
    source = None
    with suppress(ValueError):  # the check of the config says why
        source = exemplars(cfg, member) if split != 'train' else None
    prompts = files.read(source.cfg, 'prompts') if source else None
    by = '' if issubclass(kind, CocoJsonDataset) else 'CocoDataset'
    if (table := files.read(member.cfg, split, by)) is None:
        return None, []
    labels, found = _labels(table, member, kind)
    if any(item.is_error for item in found):
        return table, found  # what follows from them is no news
    rows = ((cfg.get('model') or {}).get('bbox_head') or {}).get('num_classes')
    if split == 'train' and rows is not None and len(labels) > rows:
        found.append(problem('num_classes', table.path, len(labels), rows=rows))
    if prompts is not None:
        skips = hook_bank(cfg).get('skip_missing')
        found += check_exemplars(prompts, table, labels, source.cfg.get('match', 'name'), skips)
    return table, found


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
    files: _Files, cfg: Config, split: str, tested: Sequence[tuple[Member, AnnotationTable | None]]
) -> list[Problem]:
    """Whether the evaluators of a split read what its datasets, ``tested``, read."""
    found, evaluators = [], _metrics(cfg, split)
    one_each = type_name(_evaluator(cfg, split)) == 'MultiDatasetsEvaluator'
    for number, (key, node, by_mmdet) in enumerate(evaluators):
        by = 'CocoMetric' * by_mmdet
        use = 'format' if node.get('format_only') else 'metric'
        for index, (member, table) in enumerate(tested):
            if one_each and index != number:
                continue
            own = 'ann_file' not in node  # a group's evaluator gives it
            metric = files.read(member.cfg if own else node, use, by)
            if own or table is None or metric is None or metric is table:
                continue
            labels, _ = _labels(table, member, DATASETS.get(member.cfg['type']))
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
    folders: dict[tuple[str, str], None] = field(default_factory=dict)
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
            self.folders[path, os.path.join(root, prefix)] = None
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
        found = []
        for table, uses in self.used():
            found += check_file(table, uses, self.by_mmdet[table.path])
        for path, folder in self.folders:
            if self.tables[path] is not None and os.path.isdir(folder or '.'):
                found += check_images(self.tables[path], folder, each_image)
        return self.unread + found


def _labels(
    table: AnnotationTable, member: Member, kind: type
) -> tuple[Sequence[str], list[Problem]]:
    """Names of the classes that become labels, and what is wrong with those of the config."""
    reader = described(member.key, member.cfg)
    wanted = kind._load_metainfo(member.cfg.get('metainfo')).get('classes')
    if isinstance(wanted, str):
        return (), [problem('classes_no_list', table.path, reader=reader, wanted=wanted)]
    if wanted is None or issubclass(kind, LVISV05Dataset):  # the classes are the file's
        return table.names, []
    labels = [name for name in table.names if name in set(wanted)]
    by = 'name' if issubclass(kind, CocoJsonDataset) else 'file'
    by = 'id' if issubclass(kind, Objects365V1Dataset) else by
    return labels, check_labels(table, wanted, reader, by)
