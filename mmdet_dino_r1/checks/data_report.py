"""All about the data of a config, for people and for programs."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from dataclasses import asdict, dataclass

from mmengine.config import Config

from .annotation_table import AnnotationTable
from .data import check
from .data_problem import Problem, number, report_problems, some
from .paths import Needed, needed_paths
from .preflight import explain_mistake, report_missing


@dataclass(frozen=True)
class Survey:
    """What a config needs, what is there and what is wrong with it.

    Attributes:
        needed: every local path that training, validation or test opens, each once.
        files: the parsed annotation files, with what they are used for.
        problems: errors first.
    """

    needed: list[Needed]
    files: list[tuple[AnnotationTable, list[str]]]
    problems: list[Problem]

    @property
    def missing(self) -> list[Needed]:
        """Those of the needed paths that do not exist."""
        return [item for item in self.needed if not os.path.exists(item.path)]

    @property
    def is_bad(self) -> bool:
        """Whether a run would fail or its numbers be worthless."""
        return bool(self.missing) or any(problem.is_error for problem in self.problems)

    def as_json(self, config: str) -> str:
        """All of it as one JSON object; ``config`` is the name."""
        missing = self.missing
        found = dict(
            config=config,
            paths=[asdict(item) | dict(there=item not in missing) for item in self.needed],
            files=[dict(path=t.path, uses=uses, **t.summary()) for t, uses in self.files],
            problems=[asdict(problem) for problem in self.problems],
        )
        return json.dumps(found, indent=1, ensure_ascii=False)

    def as_text(self, config: str) -> str:
        """All of it in lines, with remedies; ``config`` is the name."""
        missing = self.missing
        lines = [
            f'{"MISSING" if item in missing else "there":7}  {item.path}  '
            f'({item.owner.split(" (")[0]}, {item.key})'
            for item in self.needed
        ]
        lines += [_describe(table, uses) for table, uses in self.files]
        lines.append(report_problems(self.problems, config))
        if missing:
            # without its first line, which speaks of a start
            remedies = report_missing(missing, config).partition('\n')[2]
            lines += [f'missing: {some([item.path for item in missing])}', remedies]
        return '\n'.join(lines)


def survey(cfg: Config, each_image: bool = False) -> Survey:
    """Look at the data of training, validation and test.

    Args:
        cfg: the config.
        each_image: read every image to its end; otherwise the first 20 of each set are looked for.

    Raises:
        ValueError: the config cannot work whatever files there are.
    """
    for stage in ('train', 'test'):
        if mistake := explain_mistake(cfg, Namespace(), stage):
            raise ValueError(mistake)
    by_path: dict[str, Needed] = {}
    for item in needed_paths(cfg, Namespace(resume=None), 'all'):
        by_path.setdefault(os.path.normpath(item.path), item)
    return Survey(list(by_path.values()), *check(cfg, 'all', each_image))


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
