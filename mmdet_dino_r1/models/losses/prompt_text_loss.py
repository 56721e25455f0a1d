"""Prompt-text contrast (arXiv 2505.24025): visual prompts against their class names.

Shapes: num_boxes (all ground truth of the batch), num_classes (those present in it), dim (of the
prompts), text_dim (of the language model).
Names: prompt = embedding of one box; text = embedding of a class name, frozen; projection = the
frozen linear layer text_dim -> dim, ``text_feat_map`` of Grounding DINO.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...structures import TextEmbeddings, load_text_embeddings
from ...utils.device_copy import to_device


def mean_per_class(prompts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(num_classes, dim) means over each class present, and (num_classes,) labels, ascending.

    ``prompts`` are (num_boxes, dim), ``labels`` (num_boxes,) long; a negative one stands for no
    class. Labels are on the CPU.
    """
    classes = labels[labels >= 0].unique()
    (member,) = to_device(prompts.device, labels == classes[:, None])  # (num_classes, num_boxes)
    member = member.to(prompts.dtype)
    return member @ prompts / member.sum(dim=1, keepdim=True), classes


def prompt_text_contrast(prompts: Tensor, texts: Tensor, logit_scale: Tensor | float) -> Tensor:
    """Symmetric cross-entropy of CLIP: each prompt finds its text, each text its prompt.

    Both are (num_classes, dim), in the same order; only their directions count. ``logit_scale``, a
    scalar that the cosines are multiplied by, is the inverse of a temperature. Gives a scalar, the
    mean of both directions: 0 for one class, log(num_classes) where all texts or all prompts are
    alike.
    """
    cosines = F.normalize(prompts, dim=-1) @ F.normalize(texts, dim=-1).T
    logits = logit_scale * cosines  # (prompts, texts)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class FrozenProjection(nn.Linear):
    """``text_feat_map`` of Grounding DINO, ``text_dim`` to ``embed_dims``.

    Attributes:
        is_loaded: whether a checkpoint gave the values; those of a fresh model are random.
    """

    def __init__(self, text_dim: int, embed_dims: int) -> None:
        super().__init__(text_dim, embed_dims)
        nn.init.xavier_uniform_(self.weight)  # as mmdet's
        nn.init.zeros_(self.bias)
        self.requires_grad_(False)
        self.is_loaded = False

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        given = state_dict.get(f'{prefix}weight')
        self.is_loaded |= given is not None and given.shape == self.weight.shape


@MODELS.register_module()
class PromptTextContrastiveLoss(nn.Module):
    """Align the mean prompt of each class in the batch with the text of its name.

    Nothing but the prompts and the logit scale learns: text and projection are frozen.
    Computed in float32, whatever autocast says.

    Args:
        embeddings: path of the file that ``cache_text_embeddings`` made. Read by
            :meth:`set_classes`, so that a model without the file still tests.
        text_dim: width of the embeddings in it (768 for BERT base).
        loss_weight: as published.
        init_scale: of the logits; its logarithm is learned.
        max_scale: of the logits.
        bert: what ``TextAlignmentHook`` makes the file with where it is not there: a name on the
            Hugging Face hub, or a local folder. None: it has to be there.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        embeddings: str,
        text_dim: int = 768,
        loss_weight: float = 100.0,
        init_scale: float = 1 / 0.07,
        max_scale: float = 100.0,
        bert: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 < init_scale <= max_scale:
            raise ValueError(
                'PromptTextContrastiveLoss needs 0 < init_scale <= max_scale, got '
                f'init_scale={init_scale}, max_scale={max_scale}'
            )
        if loss_weight < 0:
            raise ValueError(f'PromptTextContrastiveLoss.loss_weight is negative: {loss_weight}')
        self.embeddings = embeddings
        self.bert = bert
        self.text_dim = text_dim
        self.loss_weight = loss_weight
        self.max_log_scale = log(max_scale)
        self.log_scale = nn.Parameter(torch.tensor(log(init_scale)))
        # neither parameter nor buffer: not in checkpoints, EMA copies or DDP's broadcasts
        self._texts: Tensor | None = None

    def set_classes(
        self,
        class_names: Sequence[str],
        read: Callable[[str], TextEmbeddings] = load_text_embeddings,
    ) -> None:
        """Read the texts of these classes, in label order; ``TextAlignmentHook`` calls it.

        ``read`` gets the path of the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it lacks a class, or has another width.
        """
        try:
            texts = read(self.embeddings)
            rows = texts.rows_for(class_names)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(
                f'{error}\nOr train without the alignment: model.text_alignment=None'
            ) from error
        if texts.text_dim != self.text_dim:
            raise ValueError(
                f'{self.embeddings} has embeddings of width {texts.text_dim}, but '
                f'model.text_alignment.text_dim={self.text_dim}. Set text_dim, or delete the '
                'file and make it with the language model that the projection was trained for.'
            )
        self._texts = rows.float()

    def forward(
        self, prompts: Tensor, labels: Tensor, projection: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """The loss (``loss_prompt_text``) and health figures (logged only).

        ``prompt_text_accuracy`` is the share of classes whose prompt is nearest to its own text
        among those of the batch, ``prompt_text_scale`` the scale of the logits. ``prompts`` are
        (num_boxes, dim) of all boxes of the batch, ``labels`` as for :func:`mean_per_class`;
        ``projection`` is frozen, (n, text_dim) -> (n, dim).

        Raises:
            RuntimeError: :meth:`set_classes` was not called.
        """
        if self._texts is None:
            raise RuntimeError(
                'model.text_alignment does not know the class names. Add '
                "text_alignment=dict(type='TextAlignmentHook') to default_hooks, or call "
                'model.text_alignment.set_classes(names).'
            )
        with torch.no_grad():
            self.log_scale.clamp_(max=self.max_log_scale)
        with torch.autocast(prompts.device.type, enabled=False):
            scale = self.log_scale.exp()
            means, classes = mean_per_class(prompts.float(), labels)
            if len(classes) < 2:  # nothing to tell apart, but every parameter gets a gradient
                loss, accuracy = (prompts.float().sum() + scale) * 0, scale.new_ones(())
            else:
                with torch.no_grad():
                    texts = projection(*to_device(means.device, self._texts[classes]))
                loss = prompt_text_contrast(means, texts, scale)
                nearest = (means.detach() @ F.normalize(texts, dim=-1).T).argmax(dim=1)
                own = torch.arange(len(nearest), device=nearest.device)
                accuracy = (nearest == own).float().mean()
        return dict(
            loss_prompt_text=self.loss_weight * loss,
            prompt_text_accuracy=accuracy,
            prompt_text_scale=scale.detach(),
        )
