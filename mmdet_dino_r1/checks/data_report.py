"""All about the data of a config, for people or for programs."""

from __future__ import annotations

import json
import os
from argparse import Namespace

from mmengine.config import Config

from .annotation_table import AnnotationTable
from .data import check
from .data_problem import number, report_problems, some
from .paths import needed_paths
from .preflight import explain_mistake, report_missing


def report_data(
    cfg: Config, config: str, each_image: bool = False, as_json: bool = False
) -> tuple[str, bool]:
    """What training, validation and test need, what is there, and what is wrong with it.

    Args:
        cfg: the config.
        config: its name.
        each_image: read every image to its end; otherwise the first 20 of each set are looked for.
        as_json: one JSON object instead of lines.

    Returns:
        The text, and whether a run would fail or its numbers be worthless.

    Raises:
        ValueError: the config cannot work whatever files there are.
    """
    for stage in ('train', 'test'):
        if mistake := explain_mistake(cfg, Namespace(), stage):
            raise ValueError(mistake)
    by_path = {}
    for item in needed_paths(cfg, Namespace(resume=None), 'all'):
        by_path.setdefault(os.path.normpath(item.path), item)
    needed = list(by_path.values())
    missing = [item for item in needed if not os.path.exists(item.path)]
    files, problems = check(cfg, 'all', each_image)
    is_bad = bool(missing) or any(problem.is_error for problem in problems)
    if as_json:
        found = dict(
            config=config,
            paths=[item._asdict() | dict(there=item not in missing) for item in needed],
            files=[dict(path=table.path, uses=uses, **table.summary()) for table, uses in files],
            problems=[problem._asdict() for problem in problems],
        )
        return json.dumps(found, indent=1, ensure_ascii=False), is_bad
    lines = []
    for item in needed:
        mark = 'MISSING' if item in missing else 'there'
        lines.append(f'{mark:7}  {item.path}  ({item.owner.split(" (")[0]}, {item.key})')
    lines += [_describe(table, uses) for table, uses in files]
    lines.append(report_problems(problems, config))
    if missing:
        # without its first line, which speaks of a start
        remedies = report_missing(missing, config).partition('\n')[2]
        lines += [f'missing: {some([item.path for item in missing])}', remedies]
    return '\n'.join(lines), is_bad


def _describe(table: AnnotationTable, uses: list[str]) -> str:
    """What is in a file, and what it is used for, in three lines."""
    found = table.summary()
    fewest = list(found['boxes_by_class'].items())
    return (
        f'{table.path} ({", ".join(uses)})\n'
        f'  {number(found["images"], "image")}, {found["images_without_boxes"]} without boxes; '
        f'{number(found["boxes"], "box", "boxes")}, {found["crowd_boxes"]} of them crowds; '
        f'{number(found["classes"], "class", "classes")}\n'
        f'  fewest boxes: {", ".join(f"{name!r} {count}" for name, count in fewest[:5])}'
    )
