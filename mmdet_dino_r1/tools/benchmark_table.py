"""Measured numbers beside the paper's: ``mim run mmdet_dino_r1 benchmark_table WORK_DIR ...``.

Reads what tests left below the folders, ``<timestamp>/metrics/test.json``, and writes
``benchmark_table.md`` and ``benchmark_table.png``. The name of a shipped config says where its
result belongs; results of other configs are given a place by ``MODEL:BENCHMARK=FOLDER``, such as
``dino_r1_t:coco=work_dirs/mine``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from mmdet_dino_r1.lab.paper_plot import BenchmarkPanel, draw_benchmarks
from mmdet_dino_r1.lab.paper_table import BENCHMARKS, MODELS, cell_of, paper_number

NOTHING = '–'
_PLACED = re.compile(r'(?P<model>\w+):(?P<benchmark>\w+)=(?P<folder>.+)')


@dataclass
class Result:
    """A finished test.

    Args:
        path: Its ``test.json``.
        record: What that file holds.
        cell: Keys of ``MODELS`` and ``BENCHMARKS``, or None.
    """

    path: Path
    record: dict
    cell: tuple[str, str] | None

    @property
    def config(self) -> str:
        """Name of the tested config."""
        return self.record['config']

    @property
    def metrics(self) -> dict:
        """Values by key, in [0, 1]."""
        return self.record['metrics']

    @property
    def protocol(self) -> dict:
        """``name`` and how the prompts were chosen."""
        return self.record['protocol']

    @property
    def members(self) -> int:
        """Datasets with a number of their own; the mean is over them."""
        ends = [key for key in self.metrics if key.endswith('/coco/bbox_mAP')]
        return sum(not key.startswith('mean/') for key in ends)


# -------------------------------------------------------------------- reading
def read_all(folders: Sequence[str]) -> list[Result]:
    """Read all tests below several folders, each once, the newest last.

    Args:
        folders: As for :func:`read_results`; what gives a place counts before what does not.
    """
    found = {}
    for folder in sorted(folders, key=lambda text: _PLACED.fullmatch(text) is None):
        for result in read_results(folder):
            found.setdefault(result.path.resolve(), result)
    # the folder of a test is named by its time
    return [found[path] for path in sorted(found, key=lambda path: (path.parts[-3], path))]


def read_results(folder: str) -> list[Result]:
    """Read all tests below a folder.

    Args:
        folder: A path, or ``MODEL:BENCHMARK=PATH``.

    Raises:
        ValueError: If a file is not such a record, or the cell is unknown.
        FileNotFoundError: If nothing was tested there.
    """
    cell = None
    if match := _PLACED.fullmatch(folder):
        cell, folder = (match['model'], match['benchmark']), match['folder']
        for name, known in zip(cell, (MODELS, BENCHMARKS), strict=True):
            if name not in known:
                raise ValueError(f'{match[0]}: {name!r} is not one of {", ".join(known)}.')
    paths = sorted(Path(folder).rglob('metrics/test.json'))
    if not paths:
        raise FileNotFoundError(
            f'{folder} holds no <timestamp>/metrics/test.json; test first: mim test mmdet_dino_r1 '
            f'CONFIG --checkpoint CHECKPOINT --work-dir {folder}'
        )
    results = []
    for path in paths:
        record = _read(path)
        results.append(Result(path, record, cell or cell_of(record['config'])))
    return results


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


def why_not_placed(result: Result) -> str | None:
    """Why a result has no place in the table; None if it has."""
    if result.cell is None:
        return 'its config is not one of the paper; place it by MODEL:BENCHMARK=FOLDER'
    benchmark = BENCHMARKS[result.cell[1]]
    if _points(result.metrics.get(benchmark.metrics[0])) == NOTHING:
        return f'it has no {benchmark.metrics[0]}'
    if benchmark.members not in (None, result.members):
        return f'its mean is over {result.members} of {benchmark.members} datasets'
    if result.protocol['name'] != 'visual_g':
        return f'its protocol is {result.protocol["name"]}, not visual_g'
    return None


# -------------------------------------------------------------------- writing
def format_table(results: Sequence[Result]) -> str:
    """The table in Markdown, its footnotes, and what stayed out of it.

    Args:
        results: Of one cell the last counts.
    """
    interactive = [result for result in results if result.protocol['name'] == 'visual_i']
    others = [result for result in results if result.protocol['name'] != 'visual_i']
    shown = placed(results)
    numbers = {}
    header, rows = ['model'], {model: [name] for model, name in MODELS.items()}
    for benchmark in _columns(shown):
        title = BENCHMARKS[benchmark].title
        header += [f'{title} (measured)', f'{title} (paper)']
        for model, row in rows.items():
            result, text = shown.get((model, benchmark)), NOTHING
            if result is not None:
                numbers[model, benchmark] = len(numbers) + 1
                text = f'{_number(result)} [{numbers[model, benchmark]}]'
            row += [text, paper_number(model, benchmark) or NOTHING]
    lines = [_line(header), _line(['---'] * len(header)), *map(_line, rows.values())]
    lines += ['', 'Box AP in points of 100, visual prompts by protocol Visual-G.', '']
    for cell, number in numbers.items():
        lines.append(f'- [{number}] {_footnote(shown[cell])}')
        lines += [
            f'  Older, not shown: {_number(result)}, {result.path}'
            for result in others
            if result.cell == cell and result is not shown[cell] and not why_not_placed(result)
        ]
    if interactive:
        lines += [
            '',
            'Visual-I, where the prompts give away which classes are in the image; not to be '
            'compared with the table:',
            '',
            *(f'- {result.config}: {_headline(result)}; {result.path}' for result in interactive),
        ]
    left_out = [(result, reason) for result in others if (reason := why_not_placed(result))]
    if left_out:
        lines += ['', 'Not placed:', '']
        lines += [
            f'- {result.config}: {_headline(result)}; {reason}; {result.path}'
            for result, reason in left_out
        ]
    return '\n'.join(lines) + '\n'


def placed(results: Sequence[Result]) -> dict[tuple[str, str], Result]:
    """The result of each cell: the last of those that belong there."""
    return {result.cell: result for result in results if why_not_placed(result) is None}


def make_panels(results: Sequence[Result]) -> list[BenchmarkPanel]:
    """The table's numbers as bars."""
    shown = placed(results)
    panels = []
    for benchmark in _columns(shown):
        measured, paper = [], []
        for model in MODELS:
            result = shown.get((model, benchmark))
            key = BENCHMARKS[benchmark].metrics[0]
            measured.append(None if result is None else 100 * result.metrics[key])
            text = (paper_number(model, benchmark) or '').partition('(')[0]
            paper.append([float(number) for number in text.split('/') if number.strip()])
        title = BENCHMARKS[benchmark].title.replace(' (r/c/f)', '')
        panels.append(BenchmarkPanel(title, list(MODELS.values()), measured, paper))
    return panels


def _columns(shown: dict[tuple[str, str], Result]) -> list[str]:
    """The paper's benchmarks, and others that were measured."""
    measured = {benchmark for _, benchmark in shown}
    return [
        benchmark
        for benchmark in BENCHMARKS
        if benchmark in measured or paper_number('dino_r1_t', benchmark)
    ]


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _points(value: float | None) -> str:
    return NOTHING if value is None or value < 0 else f'{100 * value:.1f}'


def _number(result: Result) -> str:
    """AP in points, on LVIS with those of rare, common and frequent classes."""
    first, *groups = (
        _points(result.metrics.get(key)) for key in BENCHMARKS[result.cell[1]].metrics
    )
    return f'{first} ({"/".join(groups)})' if groups else first


def _headline(result: Result) -> str:
    """The numbers that any of the benchmarks would show."""
    keys = dict.fromkeys(benchmark.metrics[0] for benchmark in BENCHMARKS.values())
    found = [f'{key} {_points(result.metrics[key])}' for key in keys if key in result.metrics]
    return ', '.join(found) or 'no AP'


def _footnote(result: Result) -> str:
    """What it takes to reproduce the number."""
    known = {'source': 'unknown'} | result.protocol
    source = 'the training split of each dataset' if 'datasets' in known else known['source']
    chunks = f', in chunks of {known["chunk_size"]} classes' if known.get('chunk_size') else ''
    mean = BENCHMARKS[result.cell[1]].members
    return (
        f'{result.config}, checkpoint {result.record.get("checkpoint") or "unknown"} '
        f'({result.record.get("weights") or "no fingerprint"}): '
        f'N = {known.get("shots", "unknown")} exemplars per class '
        f'(fewest {known.get("fewest", "unknown")}), seed {known.get("seed", "unknown")}, '
        f'from {source}; {known.get("detections_per_image", "unknown")} detections per '
        f'image{chunks}{f"; mean over {mean} datasets" if mean else ""}; {result.path}'
    )


# --------------------------------------------------------------- command line
def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='benchmark_table', description="Table and plot of measured numbers and the paper's."
    )
    parser.add_argument(
        'folders',
        nargs='+',
        metavar='WORK_DIR',
        help='work dirs of tests, or folders of such; or MODEL:BENCHMARK=WORK_DIR to say where '
        f'a result belongs (models: {", ".join(MODELS)}; benchmarks: {", ".join(BENCHMARKS)})',
    )
    parser.add_argument('--out', default='.', type=Path, help='folder to write to (default: .)')
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    try:
        results = read_all(options.folders)
        table = format_table(results)
        image = draw_benchmarks(make_panels(results))
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / 'benchmark_table.md'
        path.write_text(table, encoding='utf-8')
        picture = path.with_suffix('.png')
        if not cv2.imwrite(str(picture), image[..., ::-1]):
            raise OSError(f'Could not write {picture}.')
    except (ValueError, OSError) as error:
        print(f'benchmark_table: {error}', file=sys.stderr)
        return 2
    print(table)
    print(f'wrote {path}\nwrote {picture}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
