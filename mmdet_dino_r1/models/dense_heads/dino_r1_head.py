"""Boxes and scores of the queries, and every loss on them.

Shapes: num_layers (decoder layers), num_stages (the layers and then the encoder's selection; of
denoising queries the layers alone), bs, num_queries (matching), num_prompts, dim.
Boxes of predictions are normalised (cx, cy, w, h) unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import GroundingDINOHead
from mmdet.models.layers import inverse_sigmoid
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import InstanceList, reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...structures import BatchBoxes, ExemplarChoice, QuerySelection, VisualPrompts
from ...utils.device_copy import box_scales, remembered_rows, to_cpu, to_device
from ...utils.overlap import iou as overlap
from ..layers import PromptContrastiveEmbed
from ..task_modules import BatchedHungarianAssigner
from .negative_prompts import NegativesRule
from .training_targets import TrainingTargets, denoising_pairs


@MODELS.register_module()
class DINOR1Head(GroundingDINOHead):
    """Grounding DINO's head with logits as wide as there are prompts, and GRQO.

    Differs from the parent: targets are one-hot over the prompts of the batch; matching and
    losses run on all layers at once; the match cost is computed once and also gives the
    rewards. The detection losses have the parent's names and values. Where ``loss_cls`` is a
    ``QualityFocalLoss`` a positive is taught the IoU of its box instead of 1.

    Args:
        contrastive_cfg: ``log_scale`` and ``bias`` of the similarity, as in mmdet
            (``max_text_len`` is without effect).
        loss_grqo: config of :class:`GRQOLoss`; None trains the baseline VIS-GDINO.
        query_reward: config of the reward, from a match cost.
        **kwargs: the parent's. ``num_classes`` is the size of the denoising label embedding:
            at least the number of classes of the training set.

    Raises:
        TypeError: the assigner of ``train_cfg`` is no :class:`BatchedHungarianAssigner`.
        ValueError: ``test_cfg.negatives`` is wrong, see :class:`NegativesRule`.
    """

    def __init__(
        self,
        contrastive_cfg: dict | None = None,
        loss_grqo: dict | None = None,
        query_reward: dict | None = None,
        **kwargs,
    ) -> None:
        contrastive_cfg = dict(contrastive_cfg or dict(log_scale='auto', bias=True))
        super().__init__(contrastive_cfg, **kwargs)
        self.loss_grqo = None if loss_grqo is None else MODELS.build(loss_grqo)
        self.query_reward = TASK_UTILS.build(query_reward or dict(type='BestMatchReward'))
        if self.train_cfg and not isinstance(self.assigner, BatchedHungarianAssigner):
            raise TypeError(
                "model.train_cfg.assigner must be of type 'BatchedHungarianAssigner' "
                f'(it takes the same match_costs), got {type(self.assigner).__name__}'
            )
        if self.test_cfg:
            _ = self.negatives  # a wrong one is refused before any work

    def _init_layers(self) -> None:
        super()._init_layers()
        self.cls_branches = nn.ModuleList(
            [PromptContrastiveEmbed(**self.contrastive_cfg) for _ in self.cls_branches]
        )

    @property
    def negatives(self) -> NegativesRule:
        """The rule of ``test_cfg``, which may change between calls."""
        return NegativesRule.read(self.test_cfg)

    @property
    def needs_reference(self) -> bool:
        """Whether this step's loss compares with the reference model."""
        return self.loss_grqo is not None and self.loss_grqo.needs_reference

    def loss(
        self,
        hidden_states: Tensor,
        references: list[Tensor],
        memory_text: Tensor,
        text_token_mask: Tensor,
        selection: QuerySelection,
        dn_meta: dict,
        choice: ExemplarChoice,
        reference_logits: Tensor | None,
        ground_truth: BatchBoxes,
    ) -> dict[str, Tensor]:
        """Match once, then detection, denoising and GRQO losses of a step.

        Args:
            hidden_states: (num_layers, bs, num_denoising + num_queries, dim).
            references: num_layers + 1 times (bs, num_denoising + num_queries, 4), the boxes that
                the layers start from.
            memory_text: (bs, num_prompts, dim) fused prompts.
            text_token_mask: (bs, num_prompts) bool, all True.
            selection: what the encoder selected.
            dn_meta: layout of the denoising queries.
            choice: the exemplars; one prompt for each of their classes.
            reference_logits: (bs, num_queries) of the reference model, or None.
            ground_truth: boxes of those classes only.
        """
        logits, boxes = self(hidden_states, references, memory_text, text_token_mask)
        num_layers, device, grqo = len(logits), logits.device, self.loss_grqo
        # costs, rewards and losses in float32 whatever the precision of the network
        with torch.autocast(device.type, enabled=False):
            logits, boxes, dn_logits, dn_boxes = self.split_outputs(
                logits.float(), boxes.float(), dn_meta
            )
            logits, boxes = with_selection(logits, boxes, selection)
            targets = TrainingTargets.build(ground_truth, choice.on_device.classes)
            with torch.set_grad_enabled(grqo is not None and grqo.differentiates_reward):
                costs = self.assigner.cost(
                    logits, boxes, targets.instances, ground_truth.img_shapes
                )
            pairs = targets.pairs(self.assigner.match(costs))
            dn_pairs = denoising_pairs(dn_meta['positives'], num_layers)
            pairs, dn_pairs, positives, has_boxes = to_device(
                device,
                pairs,
                dn_pairs,
                # positives per stage, averaged over ranks in one go
                torch.tensor([pairs.shape[1] / (num_layers + 1), dn_pairs.shape[1] / num_layers]),
                torch.tensor(ground_truth.counts) > 0,
            )
            mean_positives = reduce_mean(positives).clamp(min=1)
            cls_factors = mean_positives if self.sync_cls_avg_factor else positives.clamp(min=1)
            layers = [*(f'd{i}.' for i in range(num_layers - 1)), '']
            losses = self._detection_losses(
                [*(f'{layer}loss' for layer in layers), 'enc_loss'],
                (logits, boxes, pairs),
                targets,
                (cls_factors[0], mean_positives[0]),
            ) | self._detection_losses(
                [f'{layer}dn_loss' for layer in layers],
                (dn_logits, dn_boxes, dn_pairs),
                targets,
                (cls_factors[1], mean_positives[1]),
            )
            if grqo is not None and grqo.active:
                # (num_layers, bs, num_queries): the selection has no reward
                reward = torch.stack([self.query_reward(cost[:-1]) for cost in costs], dim=1)
                losses |= grqo(
                    reward,
                    has_boxes=has_boxes,
                    objectness_logits=selection.objectness_logits.float(),
                    reference_logits=None if reference_logits is None else reference_logits.float(),
                )
        if choice.is_placeholder:
            # nothing to learn from, but every parameter must take part in the backward pass
            losses = {name: value * 0 for name, value in losses.items()}
        return losses

    def matching_loss(
        self,
        hidden_states: Tensor,
        references: list[Tensor],
        memory_text: Tensor,
        text_token_mask: Tensor,
        selection: QuerySelection,
        ground_truth: BatchBoxes,
        classes: Tensor,
    ) -> Tensor:
        """What the matching queries lose, of all stages; a scalar, not divided by the positives.

        Arguments are those of :meth:`loss` where there are no denoising queries; ``classes``
        (num_prompts,) long are the labels of the prompts, ascending. The ranks do not share it.
        """
        logits, boxes = self(hidden_states, references, memory_text, text_token_mask)
        with torch.autocast(logits.device.type, enabled=False):
            logits, boxes = with_selection(logits.float(), boxes.float(), selection)
            targets = TrainingTargets.build(ground_truth, classes)
            with torch.no_grad():
                costs = self.assigner.cost(
                    logits, boxes, targets.instances, ground_truth.img_shapes
                )
            (pairs,) = to_device(logits.device, targets.pairs(self.assigner.match(costs)))
            names = [str(stage) for stage in range(len(logits))]
            undivided = logits.new_ones(2).unbind()
            losses = self._detection_losses(names, (logits, boxes, pairs), targets, undivided)
            return torch.stack([*losses.values()]).sum()

    def _detection_losses(
        self,
        names: Sequence[str],
        predictions: tuple[Tensor, Tensor, Tensor],
        targets: TrainingTargets,
        factors: tuple[Tensor, Tensor],
    ) -> dict[str, Tensor]:
        """Class, L1 and GIoU loss of each stage: its name and ``_cls``, ``_bbox`` or ``_iou``.

        ``predictions`` are (num_stages, bs, n, num_prompts) logits, (num_stages, bs, n, 4) boxes
        and (4, num_pairs) positives, see :meth:`TrainingTargets.pairs`; everything else is
        background. ``factors`` divide the classification loss, and the box losses.
        """
        logits, boxes, (stage, image, query, gt) = predictions
        cls_factor, box_factor = factors
        num_stages, ground_truth = len(logits), targets.ground_truth
        scale = box_scales(ground_truth.img_shapes, boxes.device)[image]
        predicted, wanted = boxes[stage, image, query], ground_truth.boxes[gt]  # (num_pairs, 4)
        in_pixels = [bbox_cxcywh_to_xyxy(rows) * scale for rows in (predicted, wanted)]

        target = torch.zeros_like(logits)
        # as in mmdet's DETRHead
        by_quality = isinstance(self.loss_cls, QualityFocalLoss)
        score = overlap(*in_pixels).detach() if by_quality else 1.0
        target[stage, image, query, targets.prompt_index[gt]] = score
        cls = self.loss_cls(
            logits.flatten(0, 2), target.flatten(0, 2), reduction_override='none'
        ).reshape(num_stages, -1)

        if len(gt) == 0:
            # mmdet's box losses return a scalar for no boxes; keep the graph connected
            bbox = iou = boxes.reshape(num_stages, -1) * 0
        else:
            bbox = self.loss_bbox(predicted, wanted, reduction_override='none')
            iou = self.loss_iou(*in_pixels, reduction_override='none')
        losses = dict(
            cls=cls.sum(dim=1) / cls_factor,
            # pairs come stage by stage, as many in each
            bbox=bbox.reshape(num_stages, -1).sum(dim=1) / box_factor,
            iou=iou.reshape(num_stages, -1).sum(dim=1) / box_factor,
        )
        return {
            f'{name}_{kind}': value
            for kind, of_stages in losses.items()
            for name, value in zip(names, of_stages.unbind(), strict=True)
        }

    def predict(
        self,
        hidden_states: Tensor,
        references: list[Tensor],
        memory_text: Tensor,
        text_token_mask: Tensor,
        prompts: VisualPrompts,
        batch_data_samples: SampleList,
        rescale: bool = True,
    ) -> InstanceList:
        """Detections of each image.

        Args:
            hidden_states: (num_layers, bs, num_queries, dim).
            references: num_layers + 1 times (bs, num_queries, 4), as in :meth:`loss`.
            memory_text: (bs, num_prompts, dim) fused prompts.
            text_token_mask: (bs, num_prompts) bool, True where the prompt counts.
            prompts: the class of each, which are padding, and which are negatives.
            batch_data_samples: meta information.
            rescale: boxes in the original image's pixels rather than the input's.

        Returns:
            Per image at most ``test_cfg.max_per_img`` instances (and ``max_per_chunk``, where it
            is set), best first, after class-wise suppression where ``test_cfg.nms`` asks for it
            (ours; the paper has none): ``bboxes`` (n, 4) in pixels (x1, y1, x2, y2), clipped to
            the image, ``scores``, ``labels``. ``test_cfg.negatives`` changes the scores before; a
            label of a negative is never among them.
        """
        last = len(hidden_states) - 1  # the other layers' scores would be thrown away
        logits = self.cls_branches[last](hidden_states[last], memory_text, text_token_mask)
        offsets = self.reg_branches[last](hidden_states[last])
        boxes = (offsets + inverse_sigmoid(references[last])).sigmoid()
        device = logits.device
        scales = box_scales([sample.img_shape for sample in batch_data_samples], device)
        factors = [None] * len(logits)
        if rescale:
            factors = [tuple(sample.scale_factor) for sample in batch_data_samples]
            factors = remembered_rows(factors, device).repeat(1, 2)
        counts = prompts.counts or [len(prompts)] * len(logits)
        rule, given = self.negatives, prompts.negatives or [{}] * len(logits)
        scores = [
            # padding comes last, and is left out here
            rule.scores(of_image[:, :count], labels[:count], embeddings[:count], negatives)
            for of_image, count, labels, embeddings, negatives in zip(
                logits, counts, prompts.labels, prompts.embeddings, given, strict=True
            )
        ]
        found = [
            self._predict_by_feat_single(*of_image)
            for of_image in zip(scores, boxes, prompts.labels, scales, factors, strict=True)
        ]
        if any(given) or (rule.nearest and not rule.temperature):
            found = without_gone(found)
        nms = self.test_cfg.get('nms')
        return suppress(found, dict(nms)) if nms else found

    def _predict_by_feat_single(
        self, scores: Tensor, boxes: Tensor, labels: Tensor, scale: Tensor, factor: Tensor | None
    ) -> InstanceData:
        """Top (query, prompt) pairs of one image.

        ``scores`` (num_queries, n) are of its own prompts, which come before padding, and
        ``labels`` (num_prompts,) of all. ``boxes`` are (num_queries, 4). ``scale`` (4,) are pixels
        of the input per unit (w, h, w, h); a ``factor`` (4,) is what those pixels are divided by.
        """
        num_prompts = max(scores.shape[1], 1)
        limit = min(self.test_cfg.get('max_per_img', len(boxes)), scores.numel())
        if per_chunk := self.test_cfg.get('max_per_chunk'):
            limit = min(limit, per_chunk)
        scores, index = scores.flatten().topk(limit)
        query, prompt = index // num_prompts, index % num_prompts
        bboxes = bbox_cxcywh_to_xyxy(boxes.float())[query] * scale
        bboxes = torch.minimum(bboxes.clamp(min=0), scale)
        if factor is not None:
            bboxes = bboxes / factor
        return InstanceData(bboxes=bboxes, scores=scores, labels=labels[prompt])


def with_selection(
    logits: Tensor, boxes: Tensor, selection: QuerySelection
) -> tuple[Tensor, Tensor]:
    """The stages, which are matched and supervised alike: all layers, then the selection.

    ``logits`` are (num_layers, bs, num_queries, num_prompts), ``boxes`` (num_layers, bs,
    num_queries, 4) (cx, cy, w, h).
    """
    return (
        torch.cat([logits, selection.logits.float()[None]]),
        torch.cat([boxes, selection.boxes_unact.float().sigmoid()[None]]),
    )


def without_gone(found: InstanceList) -> InstanceList:
    """What was found in each image, best first, as far as negatives left it a score.

    On CUDA this waits for the device, once for all images.
    """
    (counts,) = to_cpu(torch.stack([(of_image.scores >= 0).sum() for of_image in found]))
    return [of_image[:count] for of_image, count in zip(found, counts.tolist(), strict=True)]


def suppress(found: InstanceList, nms: dict) -> InstanceList:
    """Class-wise suppression by mmcv's ``batched_nms``, of which ``nms`` is the config.

    On the CPU: on CUDA mmcv would wait for the device twice an image. Each image has ``bboxes``
    (n, 4) (x1, y1, x2, y2), ``scores`` and ``labels`` (n,).
    """
    rows = [torch.cat([f.bboxes, f.scores[:, None], f.labels[:, None]], dim=1) for f in found]
    on_cpu = torch.cat(rows).cpu().split([len(of_image) for of_image in rows])
    kept = [
        batched_nms(r[:, :4], r[:, 4].contiguous(), r[:, 5].long(), nms)[1]
        if len(r) > 0  # mmcv's asks for the largest coordinate
        else torch.arange(0)
        for r in on_cpu
    ]
    kept = to_device(found[0].scores.device, *kept)
    return [of_image[keep] for of_image, keep in zip(found, kept, strict=True)]


def best_of(chunks: Sequence[InstanceData], limit: int) -> InstanceData:
    """The best detections, at most ``limit``, of one image over all chunks of its prompts.

    Each chunk has ``bboxes`` (n, 4) (x1, y1, x2, y2), ``scores`` and ``labels`` (n,).
    """
    if len(chunks) == 1:
        return chunks[0]
    found = InstanceData.cat(list(chunks))
    return found[found.scores.topk(min(limit, len(found))).indices]
