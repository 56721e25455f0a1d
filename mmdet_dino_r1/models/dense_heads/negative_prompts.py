"""Negative prompts: a class's score is lowered where one of its negatives fits a query better.

With the logits z of a query, the negatives N(c) of class c, a margin and a temperature:

    score(c) = sigmoid(z_c) * (1 - sigmoid((max over N(c) of z - z_c - margin) / temperature))

At temperature 0 class c is gone where a negative reaches z_c + margin. The idea of lowering scores
at test time is T-Rex-Omni's, the rule is ours. Without negatives every class is scored by itself,
and a further class takes nothing from the others' scores.

Shapes: num_queries, n (prompts of an image, without padding), dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf, isfinite

import torch
from torch import Tensor

from ...structures import class_directions

GONE = -1.0  # the score of what is never given out


@dataclass(frozen=True)
class NegativesRule:
    """What ``model.test_cfg.negatives`` says.

    Attributes:
        nearest: as many other classes, those most alike (see :func:`class_directions`), are
            negatives of each class, besides those that are given as such.
        margin: logits by which a negative may be better.
        temperature: logits over which the score falls; 0: it is gone at once.

    Raises:
        ValueError: a value is none of these.
    """

    nearest: int = 0
    margin: float = 0.0
    temperature: float = 0.0

    def __post_init__(self) -> None:
        for name, what, kind, least in (
            ('nearest', 'a number of classes, 0 or more', int, 0),
            ('margin', 'a number of logits', int | float, -inf),
            ('temperature', 'a number of logits, 0 or more', int | float, 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind) or not isfinite(value) or value < least:
                raise ValueError(f'model.test_cfg.negatives.{name} is {what}; got {value!r}.')

    @classmethod
    def read(cls, test_cfg: Mapping) -> NegativesRule:
        """The rule of a ``test_cfg``; ValueError: it has a key that is none, or a wrong value."""
        given, known = test_cfg.get('negatives') or {}, [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(
                f'model.test_cfg.negatives has unknown keys {unknown}; known: {", ".join(known)}.'
            )
        return cls(**given)

    def refuse_chunks(self, chunk_size: int, num_prompts: int, given: bool) -> None:
        """ValueError where chunks would part classes from their negatives, nearest or ``given``."""
        if (self.nearest or given) and 0 < chunk_size < num_prompts:
            what = 'With model.test_cfg.negatives.nearest' if self.nearest else 'With distractors'
            raise ValueError(
                f'{what} classes are compared with each other, but model.test_cfg.chunk_size='
                f'{chunk_size} splits the {num_prompts} classes; set it to 0.'
            )

    def scores(
        self,
        logits: Tensor,
        labels: Tensor,
        embeddings: Tensor,
        given: Mapping[int, Sequence[int] | None],
    ) -> Tensor:
        """(num_queries, n) float32 scores of an image's (num_queries, n) logits.

        ``GONE`` is the score of the given negatives and of what the hard rule removes. The order of
        the prompts does not matter.

        Args:
            logits: of the prompts that are no padding.
            labels: (n,) long.
            embeddings: (n, dim) prompts, before any fusion.
            given: labels of negatives, and the labels of the classes that each is a negative of;
                None: of all.
        """
        logits = logits.float()
        if not (self.nearest or given) or not len(labels):
            return logits.sigmoid()
        unwanted = torch.zeros_like(labels, dtype=torch.bool)
        for label in given:
            unwanted |= labels == label
        best = torch.full_like(logits, -inf)
        for label, classes in given.items():
            column = logits.masked_fill(labels != label, -inf).amax(dim=1, keepdim=True)
            if classes is not None:
                its = torch.zeros_like(unwanted)
                for wanted in classes:
                    its |= labels == wanted
                column = column.masked_fill(~its, -inf)
            best = torch.maximum(best, column)
        for column, exists in nearest_others(embeddings, self.nearest, unwanted):
            best = torch.maximum(best, logits[:, column].masked_fill(~exists, -inf))
        if self.temperature == 0:
            scores = logits.sigmoid().masked_fill(best >= logits + self.margin, GONE)
        else:
            better = (best - logits - self.margin) / self.temperature
            scores = logits.sigmoid() * (-better).sigmoid()
        return scores.masked_fill(unwanted, GONE)


def nearest_others(embeddings: Tensor, number: int, but: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each class the most alike other class, the second one, and so on: ``number`` times.

    Each is (n,) long, a row of the (n, dim) ``embeddings``, and (n,) bool, whether there is one at
    all. Rows where ``but`` (n,) is True are nobody's.
    """
    if not number:
        return []
    with torch.autocast(embeddings.device.type, enabled=False):
        directions, _ = class_directions(embeddings)
        alike = (directions @ directions.T).fill_diagonal_(-inf).masked_fill(but, -inf)
    values, rows = alike.topk(min(number, len(alike)), dim=1)
    return list(zip(rows.unbind(1), (values > -inf).unbind(1), strict=True))
