"""The results that the DINO-R1 paper reports for visual prompts, and where ours belong.

All numbers of ``PAPER`` are the paper's (arXiv 2505.24025), none was measured here: box AP in
points of 100, protocol Visual-G.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """A column of the table.

    Args:
        title: Stands above it.
        metrics: Keys of the number, then of those that follow it in parentheses.
        members: Datasets that the number is the mean of.
    """

    title: str
    metrics: tuple[str, ...]
    members: int | None = None


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

MODELS = {
    'vis_gdino_t': 'VIS-GDINO-T',
    'vis_gdino_b': 'VIS-GDINO-B',
    'vis_gdino_l': 'VIS-GDINO-L',
    'dino_r1_t': 'DINO-R1-T',
    'dino_r1_b': 'DINO-R1-B',
    'dino_r1_l': 'DINO-R1-L',
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

_CONFIG = re.compile(
    r'(dino_r1|vis_gdino)_swin_([tbl])(_zeroshot)?_(coco|lvis_minival|lvis|odinw13|odinw35)'
)


def cell_of(config: str) -> tuple[str, str] | None:
    """Where the results of a shipped config belong.

    Args:
        config: Its name without ``.py``.

    Returns:
        Keys of ``MODELS`` and ``BENCHMARKS``; None if it is not one of the paper's.
    """
    match = _CONFIG.fullmatch(config)
    if match is None:
        return None
    family, size, zeroshot, benchmark = match.groups()
    if benchmark == 'coco' and not zeroshot:
        benchmark = 'coco_finetuned'
    return f'{family}_{size}', benchmark


def paper_number(model: str, benchmark: str) -> str | None:
    """What the paper reports, as it writes it; None if it does not.

    Args:
        model: Key of ``MODELS``.
        benchmark: Key of ``BENCHMARKS``.
    """
    return dict(zip(BENCHMARKS, PAPER[model], strict=False)).get(benchmark)
