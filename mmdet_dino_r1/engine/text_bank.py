"""Prompts made from class names alone, as good as the alignment of prompts and text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..structures import PromptBank, TextEmbeddings
from ..version import __version__
from .bank_builder import weights_fingerprint


@torch.no_grad()
def text_prompt_bank(
    model: nn.Module, texts: TextEmbeddings, class_names: Sequence[str]
) -> PromptBank:
    """One prompt per class name, on the CPU; the names need not be those of the training.

    The projected text gives the direction, which is all that the contrast has taught; the length
    is that of a visual prompt (:func:`prompt_norm`), since the fusion encoder has never seen
    another.

    Raises:
        ValueError: the model has no alignment, the texts have another width or lack a class.
    """
    projection = getattr(model, 'text_feat_map', None)
    if projection is None:
        raise ValueError(
            'Prompts from text need a model that was trained with text_alignment; '
            'model.text_alignment is None here.'
        )
    if texts.text_dim != projection.in_features:
        raise ValueError(
            f'The text embeddings have width {texts.text_dim}, model.text_feat_map takes '
            f'{projection.in_features}; make them with the language model of the training.'
        )
    rows = texts.rows_for(class_names).to(projection.weight)
    directions = nn.functional.normalize(projection(rows), dim=-1)
    prompts = directions * prompt_norm(model.prompt_encoder.output_norm)
    return PromptBank(
        tuple(class_names),
        prompts.float().cpu(),
        dict(
            prompts='text',
            shots=0,
            fewest=0,
            ann_file='class names',
            text_embeddings=dict(texts.provenance),
            weights=weights_fingerprint(model),
            package_version=__version__,
        ),
    )


def prompt_norm(norm: nn.LayerNorm) -> Tensor:
    """Root mean square length of vectors out of the prompt encoder's last layer norm, scalar.

    What is normalised has mean 0 and mean square 1 over its entries. Scaled by w and shifted by
    b, with no entry favoured, its squared length is |w|^2 + |b|^2 on average.
    """
    return (norm.weight.square().sum() + norm.bias.square().sum()).sqrt()
