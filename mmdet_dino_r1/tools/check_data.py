"""Check the data of a config: ``mim run mmdet_dino_r1 check_data CONFIG``.

Says which files the config needs, what is in the annotation files and what is wrong with them.
``mim train`` does the same before it builds a model, with annotation files up to 200 MB; a
config with ``check_data = False`` is trained without.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmdet.datasets import CocoDataset, LVISV05Dataset, Objects365V1Dataset
from mmdet.registry import DATASETS
from mmengine.config import Config, DictAction

from mmdet_dino_r1.checks.annotation_table import AnnotationTable
from mmdet_dino_r1.checks.class_check import (
    check_exemplars,
    check_labels,
    check_metric_file,
    check_num_classes,
    check_same_classes,
    check_wanted,
)
from mmdet_dino_r1.checks.data_check import check_file, check_images
from mmdet_dino_r1.checks.data_problem import Problem, number, some
from mmdet_dino_r1.checks.paths import (
    Member,
    Needed,
    datasets,
    evaluators,
    members,
    prompt_bank,
    prompt_hook,
    ready_bank,
    weights,
)
from mmdet_dino_r1.checks.preflight import explain_mistake, report_missing
from mmdet_dino_r1.config.shipped import config_path
from mmdet_dino_r1.config.tested_sets import exemplar_source
from mmdet_dino_r1.datasets.coco_json import CocoJsonDataset

SPLITS = dict(train=('train', 'val'), test=('test',), all=('train', 'val', 'test'))
# A million boxes, some 190 MB, take 9 s; mmdet parses them again in every process.
MAX_BYTES = 200_000_000
_LEVELS = ('error', 'warning', 'note')


@dataclass
class Reader:
    """An annotation file as one part of a config reads it.

    Attributes:
        use: 'train', 'val', 'test', 'prompts' or 'metric'.
        key: config key, with the type: 'train_dataloader.dataset (CocoDataset)'.
        path: the annotation file.
        folder: of the images; None where they are not read.
        cfg: of the dataset.
        prompts: where the classes of a tested set get their prompts.
        match: by 'name' or 'id'.
        skip_missing: whether classes without a prompt are allowed.
    """

    use: str
    key: str
    path: str
    folder: str | None
    cfg: dict
    prompts: Reader | None = None
    match: str = 'name'
    skip_missing: bool = False

    @property
    def type(self) -> type | None:
        """Class of the dataset, None if it is not registered."""
        kind = self.cfg.get('type')
        return DATASETS.get(kind) if isinstance(kind, str) else kind

    @property
    def wanted(self) -> list[str] | None:
        """Names of classes in the config, else those of the dataset's class, else None."""
        names = (self.cfg.get('metainfo') or {}).get('classes')
        if names is None:
            names = getattr(self.type, 'METAINFO', {}).get('classes')
        elif isinstance(names, str):  # mmengine reads a file of names
            names = Path(names).read_text().splitlines() if Path(names).is_file() else [names]
        return None if names is None else list(names)

    def labels(self, table: AnnotationTable) -> list[str]:
        """Names of the classes that become labels."""
        follows_file = self.wanted is None or issubclass(self.type, LVISV05Dataset)
        return [name for name in table.names if follows_file or name in set(self.wanted)]


# ------------------------------------------------------------------------ checks
def find_problems(cfg: Config, stage: str) -> list[Problem]:
    """What is wrong with the data of a config, errors first; cheap enough for every start.

    Files that are missing or of remote storage, and those over 200 MB, are not read.

    Args:
        cfg: the config, ``--cfg-options`` merged.
        stage: 'train' (its validation included), 'test' or 'all'.
    """
    return check(cfg, SPLITS[stage], max_bytes=MAX_BYTES)[1]


def check(
    cfg: Config,
    splits: Sequence[str],
    each_image: bool = False,
    max_bytes: float = float('inf'),
) -> tuple[list[tuple[AnnotationTable, list[str]]], list[Problem]]:
    """Parse each annotation file once and look at it from all sides.

    Args:
        cfg: the config.
        splits: of 'train', 'val', 'test'.
        each_image: read every image.
        max_bytes: larger annotation files are not read.

    Returns:
        The parsed files with what they are used for, and the problems, errors first.
    """
    readers = list(_readers(cfg, splits))
    tables, problems = _read({reader.path: None for reader in readers}, max_bytes)
    readers = [reader for reader in readers if reader.path in tables]
    used = {path: list(dict.fromkeys(_uses(readers, path))) for path in tables}
    for path, table in tables.items():
        problems += check_file(table, used[path])
    for path, folder in dict.fromkeys((reader.path, reader.folder) for reader in readers):
        if folder is not None and os.path.isdir(folder or '.'):
            problems += check_images(tables[path], folder, each_image)
    head = (cfg.get('model') or {}).get('bbox_head') or {}
    for reader in readers:
        problems += _classes(reader, tables, head.get('num_classes'))
    problems += _between(readers, tables)
    problems = list(dict.fromkeys(problems))  # val and test are often one set
    problems.sort(key=lambda problem: _LEVELS.index(problem.level))
    return [(table, used[path]) for path, table in tables.items()], problems


def _readers(cfg: Config, splits: Sequence[str]) -> Iterator[Reader]:
    for split in splits:
        loader = f'{split}_dataloader'
        for member in members(cfg.get(loader), loader):
            reader = _reader(split, _described(member), member.cfg)
            if not issubclass(reader.type or object, CocoDataset):
                continue  # unknown, or of another format
            if split != 'train' and (source := _prompt_source(member, cfg)):
                reader.match = source.pop('match', 'name')
                reader.skip_missing = (prompt_hook(cfg)[1].get('bank') or {}).get('skip_missing')
                reader.prompts = _reader('prompts', f'prompts of {reader.key}', source)
                yield reader.prompts
            yield reader
        for item in evaluators(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
            if split != 'train' and item.owner.endswith('(CocoMetric)'):
                key = item.override.partition('=')[0]
                yield Reader('metric', key, os.path.normpath(item.path), None, {})


def _reader(use: str, key: str, cfg: dict) -> Reader:
    root = cfg.get('data_root') or ''
    path = os.path.normpath(os.path.join(root, cfg.get('ann_file') or ''))
    prefix = (cfg.get('data_prefix') or {}).get('img', '')
    return Reader(use, key, path, os.path.join(root, prefix), dict(cfg))


def _described(member: Member) -> str:
    kind = member.cfg.get('type')
    return f'{member.key} ({getattr(kind, "__name__", kind)})'


def _prompt_source(member: Member, cfg: Config) -> dict | None:
    """Where the exemplars for a tested set come from, if from an annotation file."""
    found = prompt_hook(cfg)
    if found is None or found[1].get('protocol', 'visual_g') != 'visual_g' or ready_bank(found[1]):
        return None
    own = member.cfg.get('prompts')
    own = own and dict(data_root=member.cfg.get('data_root')) | dict(own)
    try:
        source = dict(exemplar_source(found[1].get('bank') or {}, cfg, own))
    except ValueError:  # the check of the config says why
        return None
    return source if source.get('ann_file') else None


def _read(
    paths: Iterable[str], max_bytes: float
) -> tuple[dict[str, AnnotationTable], list[Problem]]:
    tables, problems = {}, []
    for path in paths:
        if not os.path.isfile(path):
            continue
        if (size := os.path.getsize(path)) > max_bytes:
            what = f'{size / 1e6:.0f} MB, not read before each start'
            remedy = 'mim run mmdet_dino_r1 check_data CONFIG reads it.'
            problems.append(Problem('note', 'not_read', path, what, remedy))
            continue
        try:
            # as UTF-8, which pycocotools expects too, whatever else `json` makes of bytes
            tables[path] = AnnotationTable(json.loads(Path(path).read_bytes().decode()), path)
        except ValueError as error:
            what = str(error).removeprefix(f'{path} ')
            remedy = 'Is it the right file? It must be COCO or LVIS JSON for detection, in UTF-8.'
            problems.append(Problem('error', 'not_coco', path, what, remedy))
    return tables, problems


def _uses(readers: Iterable[Reader], path: str) -> Iterator[str]:
    return (reader.use for reader in readers if reader.path == path)


def _classes(
    reader: Reader, tables: dict[str, AnnotationTable], num_classes: int | None
) -> list[Problem]:
    """Classes of one dataset: in its file, in the model, among the prompts."""
    if reader.use in ('prompts', 'metric'):
        return []
    table, problems = tables[reader.path], []
    given = (reader.cfg.get('metainfo') or {}).get('classes')
    if isinstance(given, str) and not os.path.isfile(given):
        what = f'the classes of {reader.key} are the text {given!r}, not a list'
        remedy = f'Write metainfo=dict(classes=({given!r},)), with the comma.'
        return [Problem('error', 'classes_no_list', reader.path, what, remedy)]
    if reader.wanted is not None and not issubclass(reader.type, LVISV05Dataset):
        if issubclass(reader.type, CocoJsonDataset):
            problems = check_wanted(table, reader.wanted, reader.key)
        else:
            by_id = issubclass(reader.type, Objects365V1Dataset)
            problems = check_labels(table, reader.wanted, reader.key, by_id)
    if any(problem.is_error for problem in problems):
        return problems  # what follows from them is no news
    labels = reader.labels(table)
    if reader.use == 'train' and num_classes is not None:
        problems += check_num_classes(table, len(labels), num_classes)
    if reader.prompts is not None and reader.prompts.path in tables:
        prompts = tables[reader.prompts.path]
        problems += check_exemplars(prompts, table, labels, reader.match, reader.skip_missing)
    return problems


def _between(readers: Sequence[Reader], tables: dict[str, AnnotationTable]) -> list[Problem]:
    """Where there is one of each: training and validation, a dataset and its metric."""
    problems = []
    by_use = {use: [r for r in readers if r.use == use] for use in ('train', 'val', 'test')}
    if len(by_use['train']) == len(by_use['val']) == 1:
        train, val = by_use['train'][0].path, by_use['val'][0].path
        if train != val:
            problems += check_same_classes(tables[train], tables[val])
    for metric in readers:
        tested = by_use[metric.key.partition('_')[0]] if metric.use == 'metric' else []
        if len(tested) == 1 and tested[0].path != metric.path:
            dataset = tables[tested[0].path]
            problems += check_metric_file(dataset, tables[metric.path], metric.key)
    return problems


# ------------------------------------------------------------------------- text
def report_problems(problems: Sequence[Problem], config: str) -> str:
    """All problems of a config in one message, each with examples and remedy."""
    counts = {level: sum(p.level == level for p in problems) for level in _LEVELS}
    said = ', '.join(number(count, level) for level, count in counts.items() if count)
    lines = [f'the data of {config}: {said or "no problem found"}.']
    for problem in problems:
        lines.append(f'  {problem.level}: {problem.where}: {problem.what}')
        if problem.examples:
            more = ', …' if problem.count > len(problem.examples) else ''
            lines.append(f'    {", ".join(problem.examples)}{more}')
        lines.append(f'    Remedy: {problem.remedy}')
    return '\n'.join(lines)


def describe(table: AnnotationTable, uses: Collection[str]) -> str:
    """What is in a file, and what it is used for, in three lines.

    Args:
        table: the file.
        uses: of 'train', 'val', 'test', 'prompts' and 'metric'.
    """
    found = table.summary()
    fewest = list(found['boxes_by_class'].items())
    return (
        f'{table.path} ({", ".join(uses)})\n'
        f'  {number(found["images"], "image")}, {found["images_without_boxes"]} without boxes; '
        f'{number(found["boxes"], "box", "boxes")}, {found["crowd_boxes"]} of them crowds; '
        f'{number(found["classes"], "class", "classes")}\n'
        f'  fewest boxes: {", ".join(f"{name!r} {count}" for name, count in fewest[:5])}'
    )


def needed_paths(cfg: Config) -> list[Needed]:
    """Every local path that training, validation or test opens, each once."""
    needed = list(weights(cfg, argparse.Namespace(resume=None), 'train'))
    for split in SPLITS['all']:
        needed += datasets(cfg.get(f'{split}_dataloader'), f'{split}_dataloader')
        needed += evaluators(cfg.get(f'{split}_evaluator'), f'{split}_evaluator')
        if split != 'train' and cfg.get(f'{split}_dataloader'):
            needed += prompt_bank(cfg, split)
    by_path: dict[str, Needed] = {}
    for item in needed:
        by_path.setdefault(os.path.normpath(item.path), item)
    return list(by_path.values())


# ----------------------------------------------------------------- command line
def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='check_data',
        description='What a config needs, what is in its annotation files, and what is wrong with '
        'them. Exit status 1 if there are errors or paths are missing.',
    )
    parser.add_argument('config', help='path of a config, or name of a shipped one')
    parser.add_argument(
        '--images',
        action='store_true',
        help='read every image to its end and compare its size; otherwise the first 20 of each set '
        'are looked for',
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object instead')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in mim train'
    )
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    try:
        path = options.config if Path(options.config).is_file() else config_path(options.config)
        cfg = Config.fromfile(path)
        if options.cfg_options:
            cfg.merge_from_dict(options.cfg_options)
        for stage in ('train', 'test'):
            if mistake := explain_mistake(cfg, argparse.Namespace(tta=False), stage):
                raise ValueError(mistake)
    except (ValueError, OSError) as error:
        print(f'check_data: {error}', file=sys.stderr)
        return 2
    needed = needed_paths(cfg)
    missing = [item for item in needed if not os.path.exists(item.path)]
    tables, problems = check(cfg, SPLITS['all'], options.images)
    if options.json:
        found = dict(
            config=str(path),
            paths=[asdict(item) | dict(there=item not in missing) for item in needed],
            files=[dict(path=t.path, uses=uses, **t.summary()) for t, uses in tables],
            problems=[asdict(problem) for problem in problems],
        )
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        for item in needed:
            mark = 'MISSING' if item in missing else 'there'
            print(f'{mark:7}  {item.path}  ({item.owner.split(" (")[0]}, {item.key})')
        for table, uses in tables:
            print(describe(table, uses))
        print(report_problems(problems, path))
        if missing:
            # without its first line, which speaks of a start
            print(f'missing: {some([item.path for item in missing])}')
            print(report_missing(missing, path).partition('\n')[2])
    return int(bool(missing) or any(problem.is_error for problem in problems))


if __name__ == '__main__':
    sys.exit(main())
