"""Losses that are not finite end the training, with a message that says where to look (ours).

A NaN in a loss would go into every weight: the step is stopped before its backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet.structures import SampleList
from mmengine import dist
from torch import Tensor, nn

from .near_names import some

REMEDIES = (
    'Remedies: a lower learning rate (optim_wrapper.optimizer.lr) or a longer warm-up; training '
    'without --amp, or with --cfg-options optim_wrapper.dtype=bfloat16; the annotations: '
    '`mim run mmdet_dino_r1 check_data CONFIG`.'
)
_SHOWN = 10  # boxes that a message names at most


def check_finite(losses: dict[str, Tensor], batch_data_samples: SampleList) -> None:
    """Stop where a loss or a ground-truth box is not finite, or a box is inverted.

    One transfer to the CPU for all: scalars with ``loss`` in their names, as in mmengine, and
    ``gt_instances.bboxes`` (x1, y1, x2, y2).

    Raises:
        FloatingPointError: a short message, for :meth:`StepDiagnostics.explaining` to complete.
    """
    optimised = {name: value.detach() for name, value in losses.items() if 'loss' in name}
    boxes = torch.cat([sample.gt_instances.bboxes for sample in batch_data_samples])
    inverted = torch.where(_broken(boxes).any(), torch.nan, 0.0)
    *flags, inverted = (~torch.stack([*optimised.values(), inverted]).isfinite()).tolist()
    bad = [name for name, is_bad in zip(optimised, flags, strict=True) if is_bad]
    if bad:
        raise FloatingPointError(f'Not finite: {some(bad)}.')
    if inverted:
        raise FloatingPointError('A ground-truth box is not finite or inverted.')


class StepDiagnostics:
    """Tells of a ``model`` and this rank's ``batch_data_samples`` what was wrong with a step."""

    def __init__(self, model: nn.Module, batch_data_samples: SampleList) -> None:
        self._model = model
        self._samples = batch_data_samples

    @contextmanager
    def explaining(self, batch_inputs: Tensor) -> Iterator[None]:
        """Add the report to a ``FloatingPointError`` raised within, on (bs, 3, H, W) images."""
        try:
            yield
        except FloatingPointError as error:
            raise FloatingPointError(f'{error}\n{self.describe(batch_inputs)}') from None

    def describe(self, batch_inputs: Tensor | None = None) -> str:
        """Images, what is broken before the step begins, and remedies.

        ``batch_inputs`` are (bs, 3, H, W) images, None where they are known to be finite.
        """
        rank = f' of rank {dist.get_rank()}' if dist.get_world_size() > 1 else ''
        lines = [f'The weights were not updated. Images of this step{rank}:']
        suspects = []
        for index, sample in enumerate(self._samples):
            name = f'image id {sample.get("img_id")}'
            name += f' ({path})' if (path := sample.get('img_path')) else ''
            labels = sample.gt_instances.labels.tolist()
            classes = some(sorted(set(labels))) or 'none'
            lines.append(f'  {name}: {len(labels)} boxes of classes (labels) {classes}')
            boxes = sample.gt_instances.bboxes.cpu()
            for box in boxes[_broken(boxes)][:_SHOWN].tolist():
                suspects.append(f'{name} has a box {box} (x1, y1, x2, y2), not finite or inverted')
            if batch_inputs is not None and not batch_inputs[index].isfinite().all():
                suspects.append(f'{name} has pixels that are not finite')
        tensors = (*self._model.named_parameters(), *self._model.named_buffers())
        if broken := [name for name, tensor in tensors if not tensor.isfinite().all()]:
            suspects.append(
                f'the model itself is not finite before this step, first in {broken[0]}: look at '
                'the checkpoint that it was loaded from, or at earlier steps'
            )
        if not suspects:
            suspects.append(
                'images, boxes and parameters are finite: it arose within the model, by too high '
                'a learning rate or, with --amp, by an overflow of half precision'
            )
        lines += [f'Look first: {suspect}.' for suspect in suspects]
        return '\n'.join([*lines, REMEDIES])


StepReport = StepDiagnostics  # the name until 0.7; goes in 0.8


def _broken(boxes: Tensor) -> Tensor:
    """(n,) bool: which boxes (n, 4) (x1, y1, x2, y2) are not finite or have a negative side."""
    return ~boxes.isfinite().all(dim=1) | (boxes[:, 2:] < boxes[:, :2]).any(dim=1)
