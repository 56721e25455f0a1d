"""The results that the DINO-R1 paper reports for visual prompts, and measured ones beside them.

All numbers of ``PAPER`` are the paper's (arXiv 2505.24025), none was measured here: box AP in
points of 100, protocol Visual-G.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..structures import protocol_summary
from .markdown import NOTHING, markdown_table


@dataclass(frozen=True)
class Benchmark:
    """A column of the table."""

    title: str
    metrics: tuple[str, ...]  # keys of the number, then of those that follow in parentheses
    members: int | None = None  # datasets that the number is the mean of


_FIXED_AP = tuple(f'lvis_fixed_ap/AP{group}' for group in ('', 'r', 'c', 'f'))
BENCHMARKS = {
    'coco': Benchmark('COCO 0-shot', ('coco/bbox_mAP',)),
    'lvis_minival': Benchmark('LVIS-minival Fixed AP (r/c/f)', _FIXED_AP),
    'odinw13': Benchmark('ODinW13', ('mean/coco/bbox_mAP',), members=13),
    'odinw35': Benchmark('ODinW35', ('mean/coco/bbox_mAP',), members=35),
    'coco_finetuned': Benchmark('COCO fine-tuned', ('coco/bbox_mAP',)),
    # not in the paper
    'lvis': Benchmark('LVIS val Fixed AP (r/c/f)', _FIXED_AP),
}

# In the order of BENCHMARKS. The paper does not say what its two fine-tuned figures differ in.
PAPER = {
    'vis_gdino_t': ('19.9', '15.3 (11.8/15.6/17.1)', '4.6', '2.6', '32.5'),
    'vis_gdino_b': ('24.8', '17.1 (12.5/16.4/18.9)', '11.2', '6.7', '38.1'),
    'vis_gdino_l': ('26.1', '18.4 (15.9/17.8/20.3)', '15.3', '8.2', '39.2'),
    'dino_r1_t': ('24.0', '17.4 (14.1/17.9/20.8)', '5.0', '3.0', '37.2 / 39.6'),
    'dino_r1_b': ('26.1', '19.0 (15.9/19.4/21.2)', '14.7', '7.2', '41.3 / 42.4'),
    'dino_r1_l': ('28.1', '20.1 (17.8/19.8/23.4)', '24.1', '12.6', '43.5 / 44.1'),
}
MODELS = {name: name.upper().replace('_', '-') for name in PAPER}

_CONFIG = re.compile(
    r'(dino_r1|vis_gdino)_swin_([tbl])(_zeroshot)?_(coco|lvis_minival|lvis|odinw13|odinw35)'
)
_PLACED = re.compile(r'(?P<model>\w+):(?P<benchmark>\w+)=(?P<folder>.+)')


def cell_of(config: str) -> tuple[str, str] | None:
    """Keys of ``MODELS`` and ``BENCHMARKS`` for a shipped config; None: it is not the paper's."""
    match = _CONFIG.fullmatch(config)
    if match is None:
        return None
    family, size, zeroshot, benchmark = match.groups()
    if benchmark == 'coco' and not zeroshot:
        benchmark = 'coco_finetuned'
    return f'{family}_{size}', benchmark


def paper_number(model: str, benchmark: str) -> str | None:
    """What the paper reports, as it writes it; None if it does not."""
    return dict(zip(BENCHMARKS, PAPER[model], strict=False)).get(benchmark)


@dataclass
class Result:
    """A finished test, from its ``test.json``; ``cell`` is its place in the table, if any."""

    path: Path
    record: dict
    cell: tuple[str, str] | None

    def __post_init__(self) -> None:
        self.config, self.metrics = self.record['config'], self.record['metrics']
        self.protocol = self.record['protocol']

    def why_not_placed(self) -> str | None:
        """Why it has no place in the table; None if it has."""
        if self.cell is None:
            return 'its config is not one of the paper; place it by MODEL:BENCHMARK=FOLDER'
        benchmark = BENCHMARKS[self.cell[1]]
        if self.points(benchmark.metrics[0]) == NOTHING:
            return f'it has no {benchmark.metrics[0]}'
        sets = [k for k in self.metrics if k.endswith('/coco/bbox_mAP') and k[:5] != 'mean/']
        if benchmark.members not in (None, len(sets)):
            return f'its mean is over {len(sets)} of {benchmark.members} datasets'
        if self.protocol['name'] != 'visual_g':
            return f'its protocol is {self.protocol["name"]}, not visual_g'
        if negatives := self.protocol.get('negatives'):
            return f'negatives lower its scores (model.test_cfg.negatives: {negatives})'
        return None

    def points(self, key: str) -> str:
        """A metric in points of 100."""
        value = self.metrics.get(key)
        return NOTHING if value is None or value < 0 else f'{100 * value:.1f}'

    def number(self) -> str:
        """AP in points, on LVIS with those of rare, common and frequent classes."""
        first, *groups = map(self.points, BENCHMARKS[self.cell[1]].metrics)
        return f'{first} ({"/".join(groups)})' if groups else first

    def headline(self) -> str:
        """The config and the numbers that any of the benchmarks would show."""
        keys = dict.fromkeys(benchmark.metrics[0] for benchmark in BENCHMARKS.values())
        found = [f'{key} {self.points(key)}' for key in keys if key in self.metrics]
        return f'- {self.config}: {", ".join(found) or "no AP"}'

    def footnote(self) -> str:
        """What it takes to reproduce the number."""
        known = {'source': 'unknown'} | self.protocol
        source = 'the training split of each dataset' if 'datasets' in known else known['source']
        chunks = f', in chunks of {known["chunk_size"]} classes' if known.get('chunk_size') else ''
        mean = BENCHMARKS[self.cell[1]].members
        return (
            f'{self.config}, checkpoint {self.record.get("checkpoint") or "unknown"} '
            f'({self.record.get("weights") or "no fingerprint"}): '
            f'{protocol_summary(known | dict(ann_file=source))}; '
            f'{known.get("detections_per_image", "unknown")} detections per image{chunks}'
            f'{f"; mean over {mean} datasets" if mean else ""}; {self.path}'
        )


def read_all(folders: Sequence[str]) -> list[Result]:
    """Read all tests below several folders, each once, the newest last.

    A folder is a path or ``MODEL:BENCHMARK=PATH``; the latter count before the former. ValueError:
    the cell is unknown; FileNotFoundError: nothing was tested in a folder.
    """
    found: dict[Path, Result] = {}
    for folder in sorted(folders, key=lambda text: _PLACED.fullmatch(text) is None):
        cell = None
        if match := _PLACED.fullmatch(folder):
            cell, folder = (match['model'], match['benchmark']), match['folder']
            for name, known in zip(cell, (MODELS, BENCHMARKS), strict=True):
                if name not in known:
                    raise ValueError(f'{match[0]}: {name!r} is not one of {", ".join(known)}.')
        paths = sorted(Path(folder).rglob('metrics/test.json'))
        if not paths:
            raise FileNotFoundError(
                f'{folder} holds no <timestamp>/metrics/test.json; test first: mim test '
                f'mmdet_dino_r1 CONFIG --checkpoint CHECKPOINT --work-dir {folder}'
            )
        for path in paths:
            record = _read(path)
            result = Result(path, record, cell or cell_of(record['config']))
            found.setdefault(path.resolve(), result)
    # the folder of a test is named by its time
    return [found[path] for path in sorted(found, key=lambda path: (path.parts[-3], path))]


def _read(path: Path) -> dict:
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is not JSON: {error}') from error
    for key, kind in (('config', str), ('protocol', dict), ('metrics', dict)):
        if not isinstance(record, dict) or not isinstance(record.get(key), kind):
            raise ValueError(f'{path} has no {key!r}; it is not the record of a test.')
    if 'name' not in record['protocol']:
        raise ValueError(f"{path} has no 'name' in its protocol; it is not the record of a test.")
    return record


def format_table(results: Sequence[Result]) -> str:
    """The table in Markdown, its footnotes, and what stayed out; of one cell the last counts."""
    interactive = [result for result in results if result.protocol['name'] == 'visual_i']
    others = [result for result in results if result.protocol['name'] != 'visual_i']
    placed = [result for result in others if result.why_not_placed() is None]
    shown = {result.cell: result for result in placed}
    measured = {benchmark for _, benchmark in shown}
    columns = [b for b in BENCHMARKS if b in measured or paper_number('dino_r1_t', b)]
    numbers: dict[tuple[str, str], int] = {}
    header, rows = ['model'], {model: [name] for model, name in MODELS.items()}
    for benchmark in columns:
        title = BENCHMARKS[benchmark].title
        header += [f'{title} (measured)', f'{title} (paper)']
        for model, row in rows.items():
            text, cell = NOTHING, (model, benchmark)
            if cell in shown:
                numbers[cell] = len(numbers) + 1
                text = f'{shown[cell].number()} [{numbers[cell]}]'
            row += [text, paper_number(model, benchmark) or NOTHING]
    lines = [markdown_table(header, rows.values())]
    lines += ['', 'Box AP in points of 100, visual prompts by protocol Visual-G.', '']
    for cell, number in numbers.items():
        lines.append(f'- [{number}] {shown[cell].footnote()}')
        older = [of for of in placed if of.cell == cell and of is not shown[cell]]
        lines += [f'  Older, not shown: {of.number()}, {of.path}' for of in older]
    if interactive:
        lines += ['', 'Visual-I, where the prompts give away which classes are in the image; not ']
        lines[-1] += 'to be compared with the table:'
        lines += ['', *(f'{result.headline()}; {result.path}' for result in interactive)]
    left_out = [(result, reason) for result in others if (reason := result.why_not_placed())]
    if left_out:
        told = [f'{of.headline()}; {reason}; {of.path}' for of, reason in left_out]
        lines += ['', 'Not placed:', '', *told]
    return '\n'.join(lines) + '\n'
