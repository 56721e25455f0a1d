"""Prompts kept for later: one embedding per class, and how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from ..utils.near_names import some
from .named_rows import check_named_rows, with_nearest


@dataclass(frozen=True)
class BankExemplars:
    """The boxes that a prompt bank was encoded from, in any order, and the exemplars they make.

    Attributes:
        labels: (num_boxes,) long, row of the bank that each went into.
        boxes: (num_boxes, 4) float (x1, y1, x2, y2) in pixels of the image file.
        image_ids: id of each one's image in the annotation file.
        file_names: path of that image below the image folder.
        embeddings: (num_exemplars, dim), or None where only the means were kept.
        sets: (num_boxes,) long, row of ``embeddings`` that each box went into, where the boxes of
            a class on an image were encoded together; None: each box is an exemplar.

    Raises:
        ValueError: lengths differ, an exemplar has no box, or boxes of two classes or images.
    """

    labels: Tensor
    boxes: Tensor
    image_ids: tuple[int | str, ...]
    file_names: tuple[str, ...]
    embeddings: Tensor | None = None
    sets: Tensor | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.labels), len(self.boxes), len(self.image_ids), len(self.file_names)}
        if self.sets is not None:
            lengths.add(len(self.sets))
        elif self.embeddings is not None:
            lengths.add(len(self.embeddings))
        if len(lengths) > 1:
            raise ValueError(f'Exemplars of a prompt bank have unequal lengths: {sorted(lengths)}')
        if self.sets is None:
            return
        number = self.sets.unique().numel() if self.embeddings is None else len(self.embeddings)
        if self.sets.unique().tolist() != list(range(number)):
            raise ValueError(f'Not each of the {number} exemplars of a prompt bank has a box.')
        shared = set(zip(self.sets.tolist(), self.labels.tolist(), self.image_ids, strict=True))
        if len(shared) > number:
            raise ValueError('An exemplar of a prompt bank has boxes of two classes or images.')

    def __len__(self) -> int:
        """Exemplars, which are what is averaged."""
        return len(self.members)

    @cached_property
    def members(self) -> list[list[int]]:
        """The boxes of each exemplar, as their numbers."""
        found: dict[int, list[int]] = {}
        every = range(len(self.labels)) if self.sets is None else self.sets.tolist()
        for box, exemplar in enumerate(every):
            found.setdefault(exemplar, []).append(box)
        return [found[exemplar] for exemplar in range(len(found))]

    @property
    def set_labels(self) -> Tensor:
        """(num_exemplars,) long, row of the bank that each exemplar went into."""
        return self.labels[[boxes[0] for boxes in self.members]]

    def summary(self, class_names: Sequence[str]) -> dict:
        """How many exemplars there are, of which class, and of how many boxes."""
        counts = torch.bincount(self.set_labels.cpu(), minlength=len(class_names)).tolist()
        by_name = dict(zip(class_names, counts, strict=True))
        total = dict(num_exemplars=len(self), num_boxes=len(self.boxes))
        return dict(fewest=min(counts), most=max(counts), counts=by_name, **total)

    @property
    def _set_index(self) -> Tensor:
        return torch.arange(len(self)) if self.sets is None else self.sets

    @staticmethod
    def join(parts: Sequence[BankExemplars]) -> BankExemplars:
        """All exemplars, one part after the other; without embeddings if one part has none."""
        encoded = [part.embeddings for part in parts if part.embeddings is not None]
        sets = None
        if any(part.sets is not None for part in parts):
            starts = accumulate(map(len, parts[:-1]), initial=0)
            sets = torch.cat([p._set_index + start for p, start in zip(parts, starts, strict=True)])
        return BankExemplars(
            labels=torch.cat([part.labels for part in parts]),
            boxes=torch.cat([part.boxes for part in parts]),
            image_ids=tuple(id_ for part in parts for id_ in part.image_ids),
            file_names=tuple(name for part in parts for name in part.file_names),
            embeddings=torch.cat(encoded) if len(encoded) == len(parts) else None,
            sets=sets,
        )


@dataclass(frozen=True)
class PromptBank:
    """One visual prompt per class, the mean over that class's exemplars.

    Attributes:
        class_names: name of each class, without repetition.
        embeddings: (num_classes, dim).
        provenance: how the bank was made, in plain JSON values: ``shots``, ``seed``,
            ``ann_file``, ``ann_sha256``, ``img_prefix``, ``model`` (config name), ``weights``
            (fingerprint), ``package_version`` …
        class_ids: category id of each class in the source; empty where unknown.
        exemplars: what the embeddings are means of, or None where unknown.
        labels: label of each row in the dataset that is tested; None: the row's number. Set by
            :meth:`aligned_to`.

    Raises:
        ValueError: there is no class, a name occurs twice, an embedding is not finite, or shapes
            or lengths do not belong together.
    """

    class_names: tuple[str, ...]
    embeddings: Tensor
    provenance: dict = field(default_factory=dict)
    class_ids: tuple[int, ...] = ()
    exemplars: BankExemplars | None = None
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_named_rows('prompt bank', self.class_names, self.embeddings)
        if self.exemplars is not None and len(self.exemplars):
            highest, lowest = int(self.exemplars.labels.max()), int(self.exemplars.labels.min())
            if highest >= len(self.class_names) or lowest < 0:
                raise ValueError(f'Exemplars have labels {lowest} to {highest}.')
        for name, value in (('class_ids', self.class_ids), ('labels', self.labels)):
            if value and len(value) != len(self.class_names):
                raise ValueError(f'A prompt bank needs one of {name} per class, got {len(value)}.')

    def __len__(self) -> int:
        return len(self.class_names)

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.embeddings.shape[1]

    @property
    def label_tensor(self) -> Tensor:
        """(num_classes,) long: the label that each row stands for."""
        return torch.arange(len(self)) if self.labels is None else torch.tensor(self.labels)

    @property
    def negatives(self) -> Mapping[str, Sequence[str]]:
        """Names of the rows that are negatives, never given out, and of which classes.

        An empty list: of all. In the provenance, so that a file keeps them.
        """
        return self.provenance.get('negatives', {})

    @property
    def negative_labels(self) -> dict[int, list[int] | None]:
        """:attr:`negatives` as labels, as far as the bank has the rows; None: of all."""
        if not self.negatives:
            return {}
        label = dict(zip(self.class_names, self.label_tensor.tolist(), strict=True))
        return {
            label[name]: [label[c] for c in classes if c in label] if classes else None
            for name, classes in self.negatives.items()
            if name in label
        }

    @property
    def counts(self) -> dict[str, int] | None:
        """Exemplars by class name, or None where unknown."""
        if self.exemplars is None:
            return None
        return self.exemplars.summary(self.class_names)['counts']

    @classmethod
    def from_exemplars(
        cls,
        class_names: Sequence[str],
        embeddings: Tensor,
        labels: Tensor,
        provenance: dict | None = None,
    ) -> PromptBank:
        """Average exemplars per class (protocol Visual-G), whose names are in label order.

        The ``embeddings`` are (num_exemplars, dim), the ``labels`` (num_exemplars,) long.

        Raises:
            ValueError: a class has no exemplar.
        """
        counts = torch.bincount(labels.cpu(), minlength=len(class_names))
        if (counts == 0).any():
            without = [name for name, n in zip(class_names, counts, strict=True) if n == 0]
            raise ValueError(f'No exemplar for {len(without)} classes: {", ".join(without)}')
        nothing = embeddings.new_zeros(len(class_names), embeddings.shape[1])
        means = class_means(embeddings, labels, nothing)
        return cls(tuple(class_names), means, provenance or {})

    def aligned_to(self, class_names: Sequence[str], skip_missing: bool = False) -> PromptBank:
        """The bank's rows for exactly a tested dataset's classes, in this order, matched by name.

        With ``skip_missing`` classes that the bank lacks have no prompt and are never detected. The
        :attr:`negatives` of these classes come along, with labels after all of them; a class that
        is asked for is no negative.

        Raises:
            ValueError: a class is not in the bank; the nearest names are given.
        """
        row = {name: index for index, name in enumerate(self.class_names)}
        missing = [name for name in class_names if name not in row]
        if missing and (not skip_missing or len(missing) == len(class_names)):
            raise ValueError(
                f'The prompt bank lacks {len(missing)} of {len(class_names)} classes: '
                f'{with_nearest(missing, row)}. '
                'Build the bank from a split with the same class names.'
            )
        found = [(label, row[name]) for label, name in enumerate(class_names) if name in row]
        provenance = self.provenance
        if self.negatives:
            asked = set(class_names)
            negatives = {
                name: classes
                for name, classes in self.negatives.items()
                if name not in asked and (not classes or asked & set(classes))
            }
            provenance = dict(provenance, negatives=negatives)
            found += enumerate([row[name] for name in negatives], len(class_names))
        rows = [index for _, index in found]
        return PromptBank(
            tuple(self.class_names[index] for index in rows),
            self.embeddings[torch.tensor(rows, device=self.embeddings.device)],
            provenance,
            tuple(self.class_ids[index] for index in rows) if self.class_ids else (),
            labels=tuple(label for label, _ in found) if missing else None,
        )

    def differences_from(self, class_names: Sequence[str]) -> list[str]:
        """What :meth:`aligned_to` has to put right for these classes, in words, one line each."""
        wanted, known = set(class_names), set(self.class_names)
        lines = []
        if missing := [name for name in class_names if name not in known]:
            lines.append(f'{len(missing)} classes of the dataset have no prompt: {_some(missing)}')
        others = wanted | self.negatives.keys()
        if extra := [name for name in self.class_names if name not in others]:
            lines.append(
                f'{len(extra)} classes of the bank are not in the dataset and stay out: '
                f'{_some(extra)}'
            )
        shared = [name for name in self.class_names if name in wanted]
        if shared != [name for name in class_names if name in known]:
            lines.append('bank and dataset order their classes differently: matched by name')
        return lines

    def other_weights(self, fingerprint: str) -> str | None:
        """What to say where weights of another fingerprint made the bank; None where these did."""
        made_by = self.provenance.get('weights', 'unknown')
        if made_by == fingerprint:
            return None
        return (
            f'The prompt bank was made with the weights {made_by}, the model has {fingerprint}. '
            'Prompts of one model mean little to another; build the bank with this checkpoint.'
        )

    def with_exemplars(self, exemplars: BankExemplars | None) -> PromptBank:
        """The same bank with this record of exemplars."""
        return replace(self, exemplars=exemplars)

    def with_negatives(self, negatives: Mapping[str, Sequence[str]]) -> PromptBank:
        """The same bank with further :attr:`negatives`.

        Raises:
            ValueError: the bank lacks a row, or no other would be left.
        """
        if not negatives:
            return self
        named = {name for pair in negatives.items() for name in (pair[0], *pair[1])}
        if missing := sorted(named - set(self.class_names)):
            raise ValueError(f'The prompt bank lacks {with_nearest(missing, self.class_names)}.')
        negatives = {**self.negatives, **{name: list(of) for name, of in negatives.items()}}
        if len(negatives) == len(self):
            raise ValueError('All rows of the prompt bank are negatives; no class is left.')
        return replace(self, provenance=dict(self.provenance, negatives=negatives))

    @staticmethod
    def merge(banks: Sequence[PromptBank]) -> PromptBank:
        """Join banks of different classes, in the order given.

        The provenance keeps what all have in common, and each one's own under ``merged``.

        Raises:
            ValueError: two banks have the same class, or were made by models of different
                width or with different weights.
        """
        if len(banks) < 2:
            raise ValueError(f'Merging needs at least two prompt banks, got {len(banks)}.')
        counts = Counter(name for bank in banks for name in bank.class_names)
        if clashes := [name for name, count in counts.items() if count > 1]:
            raise ValueError(
                f'{len(clashes)} classes are in more than one bank: {_some(clashes)}. '
                'Leave them out of all banks but one.'
            )
        for what, values in (
            ('widths', [bank.dim for bank in banks]),
            ('weights', [bank.provenance.get('weights') for bank in banks]),
        ):
            if len(set(values)) > 1:
                raise ValueError(
                    f'The banks were made by models of different {what} ({_some(values)}); '
                    'build them with the same checkpoint.'
                )
        common = dict(banks[0].provenance)
        for bank in banks[1:]:
            common = {k: v for k, v in common.items() if bank.provenance.get(k) == v}
        if negatives := {name: of for bank in banks for name, of in bank.negatives.items()}:
            common['negatives'] = negatives
        merged = [dict(bank.provenance, classes=list(bank.class_names)) for bank in banks]
        ids = [bank.class_ids for bank in banks]
        return PromptBank(
            tuple(name for bank in banks for name in bank.class_names),
            torch.cat([bank.embeddings for bank in banks]),
            common | dict(merged=merged),
            tuple(id_ for of_bank in ids for id_ in of_bank) if all(ids) else (),
            _join_exemplars(banks),
        )


def class_means(embeddings: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """(num_classes, dim) means over the exemplars of each class; without any it keeps its row.

    The ``embeddings`` are (num_exemplars, dim), the ``labels`` (num_exemplars,) long and the
    ``rows`` (num_classes, dim). float64 sums: a mean does not depend on the order of the images.
    """
    labels = labels.to(rows.device)
    counts = labels.bincount(minlength=len(rows))[:, None]
    sums = torch.zeros_like(rows, dtype=torch.float64)
    sums.index_add_(0, labels, embeddings.double())
    return torch.where(counts > 0, (sums / counts.clamp(min=1)).to(rows.dtype), rows)


def protocol_summary(provenance: Mapping) -> str:
    """Shots, seed and split in a bank's provenance, in a few words; '?' is what is unknown."""
    shots, fewest = provenance.get('shots', '?'), provenance.get('fewest', '?')
    seed, source = provenance.get('seed', '?'), provenance.get('ann_file', '?')
    what = 'images with all boxes' if provenance.get('joint') else 'exemplars'
    tuned = ', tuned' * is_tuned(provenance)
    return f'N = {shots} {what} per class (fewest {fewest}), seed {seed}, from {source}{tuned}'


def is_tuned(provenance: Mapping) -> bool:
    """Whether rows of a bank, or of one merged into it, learned and are no means any more.

    Of a provenance, or of a test's protocol, which says so itself.
    """
    parts = [provenance, *provenance.get('merged', ())]
    return any(part.get('tuned') or (part.get('tuning') or {}).get('steps') for part in parts)


def _join_exemplars(banks: Sequence[PromptBank]) -> BankExemplars | None:
    """The exemplars of all banks with rows counted through; None if one bank has no record."""
    parts = [bank.exemplars for bank in banks if bank.exemplars is not None]
    if len(parts) < len(banks):
        return None
    starts = accumulate(map(len, banks[:-1]), initial=0)
    return BankExemplars.join(
        [replace(p, labels=p.labels + start) for p, start in zip(parts, starts, strict=True)]
    )


def _some(names: Sequence) -> str:
    return some([repr(name) for name in names])
