"""The benchmark's results as ratios, beside their targets, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .contenders import DINO_R1, MMDET, NAMES, PHASES, VIS_GDINO
from .imports import IMPORTED_BEFORE
from .loading import BEARABLE, summed_up
from .scaling import exponents, faster_than_linear

NOTHING = '–'
_BARE, _WHOLE = IMPORTED_BEFORE


@dataclass(frozen=True)
class Target:
    """A figure that is to be reached.

    Attributes:
        title: what it is.
        of: where the results have it, key by key.
        by: where they have what it is divided by; None: nothing.
        limit: the figure itself.
        at_least: the limit is the least, else the most.
    """

    title: str
    of: tuple[str, ...]
    by: tuple[str, ...] | None
    limit: float
    at_least: bool = False

    def assess(self, results: dict) -> dict | None:
        """``title``, ``value``, ``target`` in words and ``met``; None where it was not measured.

        Args:
            results: of the sections, by name.
        """
        of = _find(results, self.of)
        by = 1.0 if self.by is None else _find(results, self.by)
        if of is None or by is None:
            return None
        value = of / by
        met = value >= self.limit if self.at_least else value <= self.limit
        sign, unit = '≥' if self.at_least else '≤', '' if self.by else ' s'
        return dict(
            title=self.title,
            value=value,
            unit=unit,
            target=f'{sign} {self.limit:g}{unit}',
            met=met,
        )


TARGETS = (
    Target(
        'training step, DINO-R1 / mmdet',
        ('training', DINO_R1, 'step'),
        ('training', MMDET, 'step'),
        0.75,
    ),
    Target(
        'training step, VIS-GDINO / mmdet',
        ('training', VIS_GDINO, 'step'),
        ('training', MMDET, 'step'),
        0.60,
    ),
    Target(
        'training step, DINO-R1 / VIS-GDINO',
        ('training', DINO_R1, 'step'),
        ('training', VIS_GDINO, 'step'),
        1.25,
    ),
    Target(
        'peak memory of training, DINO-R1 / mmdet',
        ('memory', DINO_R1, 'peak'),
        ('memory', MMDET, 'peak'),
        0.8,
    ),
    Target(
        'one image at 80 classes, DINO-R1 / mmdet',
        ('inference', DINO_R1, '80'),
        ('inference', MMDET, '80'),
        0.8,
    ),
    Target(
        "one image at LVIS's 1203 classes, mmdet (31 chunks) / DINO-R1",
        ('inference', MMDET, '1203'),
        ('inference', DINO_R1, '1203'),
        8.0,
        at_least=True,
    ),
    Target(f'added to {_WHOLE}', ('import', _WHOLE, 'added'), None, 0.2),
    Target(f'added to a bare {_BARE}', ('import', _BARE, 'added'), None, 0.2),
)


def assess_all(results: dict) -> list[dict]:
    """What can be said of each of ``TARGETS``.

    Args:
        results: of the sections, by name.
    """
    return [told for target in TARGETS if (told := target.assess(results)) is not None]


def to_markdown(report: dict) -> str:
    """The report as text.

    Args:
        report: ``environment``, ``settings``, ``sections``, ``targets`` and ``left_out`` for want
            of memory.
    """
    parts = ['# Benchmark', _header(report)]
    if report['targets']:
        parts += ['## Targets', write_targets(report['targets'])]
    parts += write_sections(report['sections'])
    if report['left_out']:
        parts.append(f'Left out, the GPU has too little memory: {", ".join(report["left_out"])}.')
    return '\n\n'.join(parts) + '\n'


def write_sections(sections: dict, level: int = 2) -> list[str]:
    """Heading and text of each section.

    Args:
        sections: their figures, by name.
        level: of the headings.
    """
    writers = {
        'training': _training,
        'memory': _memory,
        'inference': _inference,
        'bank': _bank,
        'import': _imports,
        'scaling': _scaling,
        'loader': _loader,
    }
    parts = []
    for name, writer in writers.items():
        if name in sections:
            parts += [f'{"#" * level} {name.capitalize()}', writer(sections[name])]
    return parts


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        head: of the columns.
        rows: of cells.
    """
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _find(results: dict, keys: tuple[str, ...]) -> float | None:
    for key in keys:
        results = results.get(key)
        if results is None:
            return None
    return results


def _header(report: dict) -> str:
    said = {**report['environment'], **report['settings']}
    return '\n'.join(f'- {key}: {value}' for key, value in said.items())


def write_targets(targets: list[dict]) -> str:
    """A table of what :func:`assess_all` gives.

    Args:
        targets: of it.
    """
    rows = [
        [
            told['title'],
            f'{told["value"]:.2f}{told["unit"]}',
            told['target'],
            'met' if told['met'] else '**missed**',
        ]
        for told in targets
    ]
    return table(['figure', 'measured', 'target', ''], rows)


def _training(figures: dict) -> str:
    names = [name for name in NAMES if name in figures]

    def row(title: str, of: dict, text: str = '{:.3f}') -> list[str]:
        return [title, *(text.format(of[name]) if name in of else NOTHING for name in names)]

    phases = {phase: {n: f['phases'].get(phase) for n, f in figures.items()} for phase in PHASES}
    by_phase = [
        row(f'… {phase}', {n: value for n, value in of.items() if value is not None})
        for phase, of in phases.items()
        if any(value is not None for value in of.values())
    ]
    of = {key: {n: f[key] for n, f in figures.items()} for key in figures[names[0]]}
    rows = [
        row('step, s', of['step']),
        *by_phase,
        row('images/s', of['images_per_second'], '{:.2f}'),
        row('parameters, millions', {n: v / 1e6 for n, v in of['parameters'].items()}, '{:.1f}'),
    ]
    if MMDET in figures:
        base = figures[MMDET]['step']
        rows.append(row('step / mmdet', {n: v / base for n, v in of['step'].items()}, '{:.2f}'))
    if VIS_GDINO in figures:
        base = figures[VIS_GDINO]['step']
        rows.append(row('step / VIS-GDINO', {n: v / base for n, v in of['step'].items()}, '{:.2f}'))
    notes = [f"{name}'s language model: {f['note']}." for name, f in figures.items() if f['note']]
    return '\n\n'.join([table(['', *names], rows), *notes])


def _memory(figures: dict) -> str:
    base = figures.get(MMDET, {}).get('peak')
    rows = [
        [
            name,
            f'{of["peak"]:.2f}',
            f'{of["kept"]:.2f}',
            f'{of["peak"] / base:.2f}' if base else NOTHING,
        ]
        for name, of in figures.items()
    ]
    return table(['', 'peak of training, GiB', 'of that kept, GiB', 'peak / mmdet'], rows)


def _inference(figures: dict) -> str:
    counts = list(next(iter(figures.values())))
    rows = [[name, *(f'{of[count]:.3f}' for count in counts)] for name, of in figures.items()]
    return table(['seconds per image', *(f'{count} classes' for count in counts)], rows)


def _bank(figures: dict) -> str:
    return (
        f'{figures["images_per_second"]:.2f} images/s, '
        f'{figures["exemplars_per_second"]:.1f} exemplars/s'
    )


def _imports(figures: dict) -> str:
    rows = [[case, f'{of["before"]:.2f}', f'{of["added"]:.2f}'] for case, of in figures.items()]
    return table(['', 'seconds', 'then import mmdet_dino_r1 adds'], rows)


def _scaling(figures: dict) -> str:
    parts = []
    for factor, of in figures.items():
        columns = dict(seconds='step, s')
        if of['memory']:
            columns['memory'] = 'memory of a step, GiB'
        if 'inference_seconds' in of:
            columns['inference_seconds'] = 'inference, s'
        if 'denoising_queries' in of:
            columns['denoising_queries'] = 'denoising queries'
        head = [of['unit']]
        for title in columns.values():
            head += [title, 'exponent']
        rows = [[f'{value:.4g}'] for value in of['values']]
        for key in columns:
            grown = [NOTHING] * len(rows)
            if min(of[key]) > 0:
                grown[1:] = [f'{e:.2f}' for e in exponents(of['values'], of[key])]
            for row, value, exponent in zip(rows, of[key], grown, strict=True):
                row += [f'{value:.4g}', exponent]
        parts.append(f'### {factor.capitalize()}\n\n{table(head, rows)}')
    found = faster_than_linear(figures)
    told = f'Faster than linear over the last doubling: {"; ".join(found)}.'
    return '\n\n'.join([*parts, told if found else 'Nothing grows faster than linearly.'])


def _loader(figures: dict) -> str:
    step = figures['step']
    head = ['workers', 'seconds per batch', 'images/s']
    rows = []
    for workers, of in figures['loaders'].items():
        row = [workers, f'{of["seconds_per_batch"]:.4f}', f'{of["images_per_second"]:.1f}']
        if step is not None:
            verdict = 'yes' if of['keeps_up'] else '**no**'
            row += [f'{100 * of["waiting"]:.0f} %', verdict]
        rows.append(row)
    if step is not None:
        head += ['waiting for data', 'keeps up']
    lines = [table(head, rows), f'The config asks for {figures["configured"]} workers.']
    if step is not None:
        lines.append(
            f'A step of DINO-R1 on such a batch takes {step:.3f} s; the loader keeps up where at '
            f'most {100 * BEARABLE:.0f} % of the time is spent waiting.'
        )
    kinds = ['decode', 'resize', 'other']
    rows = []
    for title, key in (('training', 'pipeline'), ('exemplars', 'exemplar_pipeline')):
        parts, slowest = summed_up(figures[key]), max(figures[key], key=figures[key].get)
        cells = [f'{1000 * value:.2f}' for value in (*parts.values(), sum(parts.values()))]
        rows.append([title, *cells, slowest])
    head = ['milliseconds per image', *kinds, 'in all', 'slowest']
    return '\n\n'.join([*lines, table(head, rows)])
