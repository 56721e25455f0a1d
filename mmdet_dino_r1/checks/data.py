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
from mmdet.registry import DATASETS
from mmengine.config import Config

from ..config.exemplars import hook_bank
from ..datasets.coco_json import CocoJsonDataset
from .annotation_table import AnnotationTable
from .class_check import check_exemplars, check_labels, check_metric_file, check_same_classes
from .config_tree import described
from .data_check import check_file
from .data_problem import LEVELS, Problem, problem, report_problems
from .image_check import PLAIN, check_images
from .paths import SPLITS, Member, datasets_of, exemplars, metrics

# A million boxes, some 190 MB, take 9 s; mmdet parses them again in every process.
MAX_BYTES = 200_000_000


def explain_data(cfg: Config, args: argparse.Namespace, stage: str) -> str | None:
    """What is wrong with a training's annotation files; what is merely odd is printed."""
    if stage != 'train' or not cfg.get('check_data', True):
        return None
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
        tables = []
        for member in datasets_of(cfg, split):
            table, problems = _check_dataset(files, cfg, split, member)
            tables += [table] * (table is not None)
            found += problems
        single[split] = tables[0] if len(tables) == 1 else None
        for item in metrics(cfg, split):
            if item.owner.endswith('(CocoMetric)'):
                metric, tested = files.read(dict(ann_file=item.path), 'metric'), single[split]
                if None not in (metric, tested) and metric is not tested:
                    found += check_metric_file(tested, metric, item.override.partition('=')[0])
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
    as_tested = dict(pipeline=member.cfg.get('pipeline'))
    prompts = files.read(source.cfg | as_tested, 'prompts') if source else None
    if (table := files.read(member.cfg, split)) is None:
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


@dataclass
class _Files:
    """Annotation files, each read once."""

    max_bytes: float
    tables: dict[str, AnnotationTable | None] = field(default_factory=dict)
    uses: dict[str, dict[str, None]] = field(default_factory=dict)  # in order
    folders: dict[tuple[str, ...], list[tuple[str, dict]]] = field(default_factory=dict)
    unread: list[Problem] = field(default_factory=list)

    def read(self, dataset: dict, use: str) -> AnnotationTable | None:
        """The parsed file of a dataset, None if there is none that can be read; for a ``use``."""
        root = dataset.get('data_root') or ''
        path = os.path.normpath(os.path.join(root, dataset.get('ann_file') or ''))
        if path not in self.tables:
            self.tables[path] = self._parse(path) if os.path.isfile(path) else None
        if use != 'metric':
            prefix = (dataset.get('data_prefix') or {}).get('img', '')
            readers = (path, os.path.join(root, prefix), repr(_loader(dataset)))
            self.folders.setdefault(readers, []).append((use, dataset))
        self.uses.setdefault(path, {})[use] = None
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
        found = [item for table, uses in self.used() for item in check_file(table, uses)]
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
