"""The plots of a study's report."""

from __future__ import annotations

import re

import numpy as np

from .plot import (
    Difference,
    DifferencePanel,
    ExemplarCurve,
    ExemplarPanel,
    NumberPanel,
    draw_along_number,
    draw_differences,
    draw_over_exemplars,
)


def draw_report(report: dict) -> dict[str, np.ndarray]:
    """Draw what each question has results for.

    - ``question_1_differences``: every cell against the baseline.
    - ``question_1_axis``: AP along the number that the question's ``axis`` gives its cells.
    - ``question_1_exemplars``: AP over the number N of exemplars, of evaluations named
      ``<split>/g<N>``.

    Args:
        report: of :func:`~mmdet_dino_r1.lab.study.report.build_report`.

    Returns:
        RGB images, uint8 ``(height, width, 3)``, by name, without an ending.
    """
    images = {}
    for number, question in enumerate(report['questions'], start=1):
        for kind, draw in (
            ('differences', _differences),
            ('axis', _along_axis),
            ('exemplars', _over_exemplars),
        ):
            if (image := draw(report, question)) is not None:
                images[f'question_{number}_{kind}'] = image
    return images


def _differences(report: dict, question: dict) -> np.ndarray | None:
    others = [name for name in question['cells'] if name != question['baseline']]
    panels = [
        DifferencePanel(
            evaluation, [_difference(report, question, name, evaluation) for name in others]
        )
        for evaluation in report['primary']
    ]
    if all(row.mean is None for panel in panels for row in panel.rows):
        return None
    return draw_differences(question['title'], _baseline(report, question), panels)


def _along_axis(report: dict, question: dict) -> np.ndarray | None:
    axis, baseline = question.get('axis'), question['baseline']
    if axis is None:
        return None
    # the baseline is a line, so its number, often 0, needs no place on a logarithmic axis
    numbers = {
        name: value
        for name, value in axis['values'].items()
        if name != baseline and name in question['cells']
    }
    panels = []
    for evaluation in report['primary']:
        at = question['cells'][baseline]['evaluations'][evaluation]['summary']
        cells = [_difference(report, question, name, evaluation) for name in numbers]
        if at is not None and any(cell.mean is not None for cell in cells):
            panels.append(NumberPanel(evaluation, at['mean'], list(numbers.values()), cells))
    if not panels:
        return None
    log = axis.get('log', False)
    title = _baseline(report, question)
    return draw_along_number(question['title'], axis['label'], title, panels, log)


def _over_exemplars(report: dict, question: dict) -> np.ndarray | None:
    counts: dict[str, dict[int, str]] = {}
    for evaluation in report['evaluations']:
        if named := re.fullmatch(r'(.+)/g(\d+)', evaluation):
            counts.setdefault(named[1], {})[int(named[2])] = evaluation
    panels = []
    for split, by_count in counts.items():
        curves = []
        for name in question['cells']:
            cell = report['cells'][name]
            told = {n: cell['evaluations'][by_count[n]]['AP'] for n in sorted(by_count)}
            told = {n: of for n, of in told.items() if of is not None}
            if len(told) > 1:
                figures = ([of[key] for of in told.values()] for key in ('mean', 'std'))
                curves.append(ExemplarCurve(cell['title'], list(told), *figures))
        if curves:
            panels.append(ExemplarPanel(split, curves))
    return draw_over_exemplars(question['title'], panels) if panels else None


def _difference(report: dict, question: dict, name: str, evaluation: str) -> Difference:
    title = report['cells'][name]['title']
    told = question['cells'][name]['evaluations'][evaluation]['difference']
    if told is None:
        return Difference(title)
    return Difference(title, told['mean'], told['low'], told['high'], told['values'])


def _baseline(report: dict, question: dict) -> str:
    return report['cells'][question['baseline']]['title']
