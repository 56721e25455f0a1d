"""Tunes the rows of a prompt bank on a few annotated images; the detector is frozen (ours).

A class's row starts as the mean of its exemplars and follows the gradient of what the matching
queries lose. Images that are held out say how many steps to take, and whether the mean is kept:

1. The images are dealt into folds, each class over all of them.
2. For each fold a bank is tuned on the other folds' images, from the mean of their exemplars. Now
   and then the fold's own images are asked for their loss.
3. By the losses of all folds together :func:`choose_look` says how many steps to take, with all
   images.

Shapes: num_rows (classes of the bank), num_tuned (those that learn), num_images, dim.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..structures import PromptBank, VisualPrompts, class_means
from .bank_builder import assemble_bank
from .tuning_images import TuningImages

# When the held-out images are asked, in shares of all steps.
_LOOKS = (0.1, 0.25, 0.5, 1.0)
Progress = Callable[[int, int], None]


def tune_bank(
    model: nn.Module,
    exemplars: Dataset,
    start: PromptBank | None = None,
    *,
    steps: int = 120,
    lr: float = 0.03,
    batch_size: int = 8,
    folds: int = 4,
    seed: int = 0,
    fewest_images: int = 2,
    cache_gib: float = 4.0,
    half_cache: bool = False,
    provenance: Mapping | None = None,
    progress: Progress | None = None,
) -> PromptBank:
    """Tune the rows of the classes of some annotated images.

    Several processes share the folds and get the same bank as one.

    Args:
        model: a ``DINOR1``; its weights, mode and ``requires_grad`` are as before in the end.
        exemplars: an ``ExemplarDataset`` whose samples have ``gt_instances``, all boxes of the
            image; what is not in a box counts as background.
        start: a bank, made with the same weights, whose rows are begun with where it has the
            class. Its other rows stay as they are and compete. None: all begin as means.
        steps: most steps; the images held out choose how many are taken.
        lr: learning rate of Adam, in root mean squares of the rows' entries; falls to 0 along half
            a cosine.
        batch_size: images a step.
        folds: parts of the images that are held out in turn, as many as images where these are
            fewer. 0: none is held out, and all steps are taken.
        seed: order of the images, and which are held out together.
        fewest_images: a class with boxes on fewer images keeps the row that it begins with.
        cache_gib: GiB that the images' features may take.
        half_cache: keep them in bfloat16.
        provenance: what to state besides.
        progress: called with the steps done and all steps; may raise to stop.

    Returns:
        The bank, on the CPU: the classes of ``start``, then new ones. Its
        ``provenance['tuning']`` says what was done.

    Raises:
        FileNotFoundError: image files are missing.
        ValueError: an image cannot be read, or no image has an exemplar.
    """
    exemplars.check_images()
    names = exemplars.metainfo['classes']
    old = start.class_names if start else ()
    class_names = (*old, *(name for name in names if name not in old))
    row_of_label = torch.tensor([class_names.index(name) for name in names])
    with frozen(model):
        images = TuningImages(model, exemplars, row_of_label, cache_gib, half_cache)
        bank = assemble_bank(
            model,
            exemplars,
            [[index] for index in images.exemplars],
            [(found.embeddings, found.box_sets) for found in images.exemplars.values()],
            provenance=provenance,
        )
        rows = torch.zeros(len(class_names), bank.dim)
        rows[row_of_label] = bank.embeddings
        rows[: len(old)] = start.embeddings if start else rows[: len(old)]
        shown = torch.stack([labels.bincount(minlength=len(rows)) for labels in images.labels]) > 0
        learns = shown.sum(dim=0) >= fewest_images
        tuner = RowTuner(model, images, rows, learns, len(old), steps, lr, batch_size, seed)
        parts = deal(shown, min(folds, len(images)), seed) if learns.any() else []
        tuned, about = tuner.run(parts, progress)
    about |= dict(
        lr=lr,
        batch_size=batch_size,
        seed=seed,
        images=len(images),
        fewest_images=fewest_images,
        tuned=[name for name, one in zip(class_names, learns.tolist(), strict=True) if one],
        kept=[name for name, one in zip(class_names, learns.tolist(), strict=True) if not one],
        start=dict(start.provenance) if start else 'the means of the exemplars',
    )
    negatives = dict(negatives=start.negatives) if start and start.negatives else {}
    assert bank.exemplars is not None
    return PromptBank(
        class_names,
        tuned,
        bank.provenance | dict(tuning=about) | negatives,
        () if start else bank.class_ids,
        # of these images alone: of the other rows of `start` it says nothing
        replace(bank.exemplars, labels=row_of_label[bank.exemplars.labels]),
    )


@dataclass
class Queries:
    """Queries as some rows select them.

    Attributes:
        rows: (num_rows, dim) those rows.
        kept: by number of the image what :meth:`RowTuner.late_states` gives, where there is room.
    """

    rows: Tensor
    kept: dict[int, tuple[Tensor, dict]] = field(default_factory=dict)


@dataclass(frozen=True)
class RowTuner:
    """Tunes the rows of a bank on any part of some images.

    Attributes:
        model: a frozen ``DINOR1``.
        images: all of them.
        rows: (num_rows, dim), on the CPU: what all images begin with.
        learns: (num_rows,) bool, which rows do.
        num_old: rows, the first ones, that are no means of these images.
        steps: most steps.
        lr: see :func:`tune_bank`, as for the others.
        batch_size: images a step.
        seed: order of the images.
    """

    model: nn.Module
    images: TuningImages
    rows: Tensor
    learns: Tensor
    num_old: int
    steps: int
    lr: float
    batch_size: int
    seed: int

    def run(
        self, parts: Sequence[Sequence[int]], progress: Progress | None = None
    ) -> tuple[Tensor, dict]:
        """Tune on all images for as many steps as the ``parts`` that are held out agree with.

        Gives (num_rows, dim) rows on the CPU and, in plain values, what was chosen and why.
        """
        every = range(len(self.images))
        trials = [(sorted({*every} - {*part}), part) for part in [*parts, []]]
        if not self.learns.any():
            return self.rows, dict(steps=0, most_steps=self.steps, folds=0, held_out=[])
        mine = range(get_rank(), len(trials), get_world_size())  # each process has its trials
        ticks = count(1)

        def tick() -> None:
            done = next(ticks)
            if progress is not None:
                progress(done, self.steps * len(mine))

        ours = {number: list(self.trial(*trials[number], tick)) for number in mine}
        found = {
            key: value for of_rank in all_gather_object(ours) for key, value in of_rank.items()
        }
        looks = [step for step, *_ in found[0]]
        # (num_looks, num_images) of all folds, and the number of boxes of each image
        losses = torch.tensor(
            [
                [loss for k in range(len(parts)) for loss in found[k][n][2]]
                for n in range(len(looks))
            ]
        )
        boxes = sum(len(self.images.labels[i]) for part in parts for i in part)
        best = choose_look(losses) if parts else len(looks) - 1
        means = (losses.sum(dim=1) / max(boxes, 1)).tolist() if parts else []
        held_out = [list(pair) for pair in zip(looks, means, strict=False)]
        about = dict(steps=looks[best], most_steps=self.steps, folds=len(parts), held_out=held_out)
        return found[len(parts)][best][1], about

    def trial(
        self, train: Sequence[int], held_out: Collection[int], tick: Callable[[], None]
    ) -> Iterator[tuple[int, Tensor, list[float]]]:
        """Steps, (num_rows, dim) rows and losses of the held-out images, at each look; first 0."""
        generator = torch.Generator().manual_seed(self.seed)
        device = next(self.model.parameters()).device
        start = self.begin(train)
        learned = nn.Parameter(start[self.learns].to(device))
        size = start.square().mean().sqrt().item()
        optimizer = torch.optim.Adam([learned], lr=self.lr * size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        where = self.learns.nonzero()[:, 0].to(device)
        rows = start.to(device)

        def current() -> Tensor:
            return rows.index_copy(0, where, learned)

        looks = {0, *(max(1, round(share * self.steps)) for share in _LOOKS)}
        queue: list[int] = []
        for step in range(self.steps + 1):
            if step in looks:
                with torch.no_grad():
                    now = current()
                    # those of the images held out are not kept: they are asked once
                    losses = [self.loss(index, now, Queries(now)).item() for index in held_out]
                queries = Queries(now)  # selected anew
                yield step, now.cpu(), losses
            if step == self.steps:
                return
            while len(queue) < self.batch_size:
                queue += [train[i] for i in torch.randperm(len(train), generator=generator)]
            batch, queue = queue[: self.batch_size], queue[self.batch_size :]
            boxes = max(1, sum(len(self.images.labels[index]) for index in batch))
            optimizer.zero_grad()
            for index in batch:
                (self.loss(index, current(), queries) / boxes).backward()
            optimizer.step()
            schedule.step()
            tick()

    def begin(self, train: Collection[int]) -> Tensor:
        """(num_rows, dim) rows to begin with on some of the images: their own means.

        A class of which they show nothing has the mean of all, and so have old rows what they had.
        """
        chosen = set(train)
        found = [found for index, found in self.images.exemplars.items() if index in chosen]
        if len(train) == len(self.images) or not found:
            return self.rows
        embeddings = torch.cat([of_image.embeddings for of_image in found])
        means = class_means(embeddings, torch.cat([of_image.rows for of_image in found]), self.rows)
        return torch.cat([self.rows[: self.num_old], means[self.num_old :]])

    def loss(self, index: int, rows: Tensor, queries: Queries) -> Tensor:
        """What an image's matching queries lose with (num_rows, dim) rows, summed; a scalar.

        Without fusion the queries are those that ``queries.rows`` select, else those of ``rows``.
        """
        model, of_image = self.model, self.images[index]
        labels = torch.arange(len(rows), device=rows.device)
        prompts = VisualPrompts.shared(rows, labels, 1)
        if model.fusion:
            outputs = model.run_transformer(of_image.image, of_image.decoder_inputs, prompts)
        else:
            tokens, outputs = self.late_states(index, queries)
            text = prompts.as_text_dict()
            branch = model.bbox_head.cls_branches[-1]
            logits = branch(tokens, text['embedded'], text['text_token_mask'])
            outputs = dict(
                outputs,
                memory_text=text['embedded'],
                text_token_mask=text['text_token_mask'],
                selection=replace(outputs['selection'], logits=logits),
            )
        return model.bbox_head.matching_loss(
            **outputs, ground_truth=of_image.ground_truth, classes=labels
        )

    @torch.no_grad()
    def late_states(self, index: int, queries: Queries) -> tuple[Tensor, dict]:
        """Without fusion: what is selected, and what the decoder makes of it.

        Gives the (1, num_queries, dim) tokens and what ``DINOR1.run_transformer`` does. Prompts act
        on nothing else but the choice of the tokens, so while that is left as it is, rows learn
        without the decoder.
        """
        if (kept := queries.kept.get(index)) is not None:
            return kept
        of_image, labels = self.images[index], torch.arange(len(queries.rows))
        prompts = VisualPrompts.shared(queries.rows, labels.to(queries.rows.device), 1)
        outputs = self.model.run_transformer(of_image.image, of_image.decoder_inputs, prompts)
        encoded = self.model.forward_encoder(
            **of_image.image,
            token_indices=outputs['selection'].indices,
            text_dict=prompts.as_text_dict(),
        )
        tokens = self.model.selectable(encoded['memory'], encoded['invalid_mask'])
        size = tokens.nbytes + outputs['hidden_states'].nbytes
        if len(queries.kept) < self.images.room // size:
            queries.kept[index] = tokens, outputs
        return tokens, outputs


def choose_look(losses: Tensor) -> int:
    """Which look to take, by (num_looks, num_images) losses of images that were held out; 0: none.

    The start, unless the lowest sum is below its own by more than one standard error of the
    difference. Else the last look that is within one standard error of the lowest: where the loss
    says no more, further steps still order detections better (docs/prompt_tuning.md).
    """
    number = losses.shape[1]
    best = int(losses.sum(dim=1).argmin())
    worse = losses - losses[best]  # (num_looks, num_images)
    if number < 2:
        return 0
    near = worse.sum(dim=1) <= worse.std(dim=1) * number**0.5
    return 0 if near[0] else int(near.nonzero()[-1])


def deal(shown: Tensor, folds: int, seed: int) -> list[list[int]]:
    """Deal images into folds so that each class is spread over them; [] if there is but one fold.

    ``shown`` is (num_images, num_rows) bool, which classes each image shows. Rare classes are dealt
    first, each image to the fold that has the fewest images of the class, then in all.
    """
    if folds < 2:
        return []
    parts: list[list[int]] = [[] for _ in range(folds)]
    order = torch.randperm(len(shown), generator=torch.Generator().manual_seed(seed))
    has = torch.zeros(folds, shown.shape[1], dtype=torch.long)
    left = dict.fromkeys(order.tolist())
    rare_first = shown.sum(dim=0).argsort(stable=True).tolist()
    for row in [*rare_first, None]:  # images that show nothing come last
        for index in [i for i in left if row is None or shown[i, row]]:
            fold = min(range(folds), key=lambda k: (row is not None and has[k, row], len(parts[k])))
            parts[fold].append(index)
            has[fold] += shown[index]
            del left[index]
    return [sorted(part) for part in parts]


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """A model in eval mode whose weights want no gradient; in the end it is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(weight, weight.requires_grad) for weight in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, wants in wanted:
            weight.requires_grad_(wants)
