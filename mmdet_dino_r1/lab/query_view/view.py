"""What the queries of one image did, stage by stage; plain numbers, for figures and export.

Shapes: num_stages (the encoder's selection, then each decoder layer), num_queries (in selection
order: highest objectness first), num_prompts, num_gts.
Boxes are (cx, cy, w, h), normalised by the unpadded image.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_REWARD_ARRAYS = ('gt_boxes', 'gt_prompts', 'rewards', 'advantages', 'matches')


@dataclass(frozen=True, eq=False)
class QueryRewards:
    """How well the queries do, by the ground truth of their image (arXiv 2505.24025, Algorithm 1).

    The selection is no decoder layer and gets no reward in training; its figures are what the same
    formulas give, for comparison. Rewards depend on the number of prompts: compare models only
    under the same ones.
    """

    gt_boxes: np.ndarray  # (num_gts, 4) of the classes that have a prompt
    gt_prompts: np.ndarray  # (num_gts,) int, the prompt of each
    rewards: np.ndarray  # (num_stages, num_queries), minus the lowest match cost
    advantages: np.ndarray  # as many, normalised in each stage, then 0 for muted queries
    matches: np.ndarray  # as many int, the ground truth matched one to one, -1 for none
    num_kept: int  # queries 0 … num_kept - 1 are not muted

    @property
    def matched(self) -> np.ndarray:
        """(num_stages, num_queries) bool."""
        return self.matches >= 0


@dataclass(frozen=True, eq=False)
class QueryView:
    """The queries of one image; ValueError without a prompt, or where shapes do not fit."""

    image_id: int | str
    image_path: str
    class_names: tuple[str, ...]  # of the prompts
    boxes: np.ndarray  # (num_stages, num_queries, 4)
    scores: np.ndarray  # (num_stages, num_queries, num_prompts) in [0, 1]
    truth: QueryRewards | None = None  # None where no ground truth was given

    def __post_init__(self) -> None:
        stages, queries, prompts = self.scores.shape
        if self.boxes.shape != (stages, queries, 4) or prompts != len(self.class_names):
            raise ValueError(
                f'Boxes {self.boxes.shape}, scores {self.scores.shape} and '
                f'{len(self.class_names)} class names do not belong together.'
            )
        if prompts == 0:
            raise ValueError('A query view needs at least one prompt.')

    @property
    def name(self) -> str:
        """The image's id, fit for the name of a file."""
        return str(self.image_id).replace('/', '_')

    @property
    def stages(self) -> tuple[str, ...]:
        """Name of each stage."""
        return ('selection', *(f'layer {number}' for number in range(1, len(self.boxes))))

    @property
    def preferred(self) -> np.ndarray:
        """(num_stages, num_queries) int: the prompt of the highest score."""
        return self.scores.argmax(axis=-1)

    @property
    def best_scores(self) -> np.ndarray:
        """(num_stages, num_queries): score of the preferred prompt."""
        return self.scores.max(axis=-1)

    @property
    def objectness(self) -> np.ndarray:
        """(num_queries,): by which the encoder selected the queries; descending."""
        return self.best_scores[0]

    def summary(self) -> list[dict]:
        """One dict of plain numbers per stage; without ground truth only those of the scores.

        ``reward_kept`` and ``reward_muted`` are means over queries that GRQO keeps and mutes, None
        where there are none; ``advantage`` is the mean over all queries, after muting: what GRQO's
        loss multiplies by minus ``reward_weight``.
        """
        rows = []
        for index, stage in enumerate(self.stages):
            score = self.best_scores[index]
            row = dict(stage=stage, score=float(score.mean()), best_score=float(score.max()))
            if self.truth is not None:
                reward, kept = self.truth.rewards[index], self.truth.num_kept
                row |= dict(
                    reward=mean_or_none(reward),
                    reward_std=float(reward.std(ddof=1)) if len(reward) > 1 else 0.0,
                    reward_kept=mean_or_none(reward[:kept]),
                    reward_muted=mean_or_none(reward[kept:]),
                    reward_matched=mean_or_none(reward[self.truth.matched[index]]),
                    advantage=mean_or_none(self.truth.advantages[index]),
                )
            rows.append(row)
        return rows

    def save(self, path: str | Path) -> Path:
        """Write all to a ``*.npz`` (else ValueError; numbers, no pickle); its folder is made."""
        path = Path(path)
        if path.suffix != '.npz':
            raise ValueError(f'A query view is written as *.npz, not {path.name}')
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {name: getattr(self, name) for name in ('image_id', 'image_path', 'class_names')}
        meta, arrays = dict(version=1, **about), dict(boxes=self.boxes, scores=self.scores)
        if self.truth is not None:
            meta['num_kept'] = self.truth.num_kept
            arrays |= {name: getattr(self.truth, name) for name in _REWARD_ARRAYS}
        np.savez_compressed(path, meta=np.array(json.dumps(meta)), **arrays)
        return path


def load_query_view(path: str | Path) -> QueryView:
    """Read a ``*.npz`` that :meth:`QueryView.save` wrote; ValueError: it is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file['meta']))
            truth = None
            if 'num_kept' in meta:
                arrays = {name: file[name] for name in _REWARD_ARRAYS}
                truth = QueryRewards(**arrays, num_kept=meta['num_kept'])
            about = (meta['image_id'], meta['image_path'], tuple(meta['class_names']))
            return QueryView(*about, file['boxes'], file['scores'], truth)
    except (KeyError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is not a query view: {error}') from error


def mean_or_none(values: np.ndarray) -> float | None:
    """Mean of an array of any shape; None where it is empty."""
    return float(values.mean()) if values.size else None
