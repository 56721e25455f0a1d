"""The frozen copy that GRQO's KL compares with."""

from __future__ import annotations

from copy import deepcopy

import torch
from mmdet.structures import SampleList
from torch import Tensor

from ...structures import ExemplarChoice


class ReferenceModel:
    """A snapshot of the whole path up to the objectness, in eval mode.

    Not an ``nn.Module``, on purpose: so it is in no ``parameters()``, ``state_dict()``,
    optimiser or DDP bucket, and ``train()`` and ``init_weights()`` pass it by. When it is
    refreshed is ``ReferenceModelHook``'s business.

    BatchNorm in training mode sees other statistics than the snapshot in eval mode, and the KL
    then starts above zero; give a backbone that trains from scratch GroupNorm.
    """

    def __init__(self) -> None:
        self._snapshot = None

    @property
    def is_ready(self) -> bool:
        """Whether a snapshot was taken."""
        return self._snapshot is not None

    @torch.no_grad()
    def refresh(self, policy) -> None:
        """Make the snapshot equal to ``policy`` (a ``DINOR1``) as it is now."""
        if self._snapshot is None:
            # the objectness needs no decoder: leave it out of the copy
            unused = (
                policy.decoder,
                policy.dn_query_generator,
                policy.query_embedding,
                policy.bbox_head.reg_branches,
            )
            self._snapshot = deepcopy(policy, {id(module): None for module in unused})
            self._snapshot.requires_grad_(False)
            self._snapshot.eval()
            return
        current = policy.state_dict()
        for name, tensor in self._snapshot.state_dict().items():
            tensor.copy_(current[name])

    @torch.no_grad()
    def restore(self, policy, state: dict[str, Tensor]) -> None:
        """Make the snapshot of a ``DINOR1`` what it was when ``state`` was its ``state_dict``."""
        self.refresh(policy)
        self._snapshot.load_state_dict(state)

    def state_dict(self) -> dict[str, Tensor]:
        """The snapshot's tensors (not part of the detector's ``state_dict``)."""
        return self._snapshot.state_dict()

    def objectness_logits(
        self,
        batch_inputs: Tensor,
        batch_data_samples: SampleList,
        choice: ExemplarChoice,
        indices: Tensor,
    ) -> Tensor:
        """Objectness logits at the tokens ``indices`` that the policy selected.

        Both are (bs, num_queries). The images (bs, 3, H, W) are the step's; ``choice`` prompts.

        Raises:
            RuntimeError: no snapshot was taken.
        """
        if self._snapshot is None:
            raise RuntimeError(
                'GRQOLoss has kl_weight > 0 but nothing refreshes the reference model. Add '
                "reference_model=dict(type='ReferenceModelHook') to default_hooks, or set "
                'kl_weight=0.'
            )
        model = self._snapshot
        with torch.inference_mode():
            feats = model.extract_feat(batch_inputs)
            image, _ = model.pre_transformer(feats, batch_data_samples)
            if model.prompts_from == 'memory':  # else only the memory of these tokens is needed
                image = model.encode_image(image)
            text_dict = model.training_prompts(image, choice).as_text_dict()
            encoded = model.forward_encoder(**image, text_dict=text_dict, token_indices=indices)
            logits = model.query_selector.objectness_logits(
                model.selectable(encoded['memory'], encoded['invalid_mask']),
                encoded['memory_text'],
                encoded['text_token_mask'],
                model.bbox_head.cls_branches[-1],
            )
        return logits.clone()  # an ordinary tensor, which the loss may keep for its backward pass

    def __deepcopy__(self, memo: dict) -> ReferenceModel:
        """A copied detector (an EMA model, a snapshot) starts without a reference."""
        return ReferenceModel()
