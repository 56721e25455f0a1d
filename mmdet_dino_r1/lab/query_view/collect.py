"""Look at the queries of a model, layer by layer: where they are, what they prefer, their rewards.

Everything comes from the model's own stages, its assigner, its reward and the GRQO loss's
functions; nothing is computed a second way. Stages are the encoder's selection, then the decoder
layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.data import Dataset

from ...models.losses.grqo_loss import GRQOLoss, group_advantage, mute_last
from ...structures.visual_prompts import PADDING_LABEL
from ...utils.device_copy import box_scales, to_cpu
from .view import QueryRewards, QueryView


@torch.no_grad()
def view_queries(
    model: nn.Module,
    batch_inputs: Tensor,
    batch_data_samples: SampleList,
    class_names: Sequence[str],
) -> list[QueryView]:
    """Run a model once on a batch, in eval mode, and keep what its queries did: a view per image.

    All prompts go in at once, as in training: ``test_cfg.chunk_size`` has no effect. Settings of
    the advantage are those of ``bbox_head.loss_grqo``, the published ones where it is None.

    Args:
        model: a ``DINOR1``.
        batch_inputs: (bs, 3, H, W) normalised images.
        batch_data_samples: as the data preprocessor leaves them; prompts are the samples' own
            ``prompt_instances`` or the model's bank. ``gt_instances``, where given, have
            ``bboxes`` (x1, y1, x2, y2) in pixels of the network input and ``labels``; boxes of
            classes without a prompt are left out, as in training.
        class_names: of all labels of the prompts, in label order.

    Raises:
        RuntimeError: the model has no prompts.
        ValueError: an image has no prompt, or there is ground truth and the model has no assigner.
    """
    was_training = model.training
    model.eval()
    try:
        feats = model.extract_feat(batch_inputs)
        encoder_inputs, decoder_inputs = model.pre_transformer(feats, batch_data_samples)
        encoded = model.encode_image(encoder_inputs)
        prompts = model.prompts_for(encoded, batch_data_samples)
        outputs = model.run_transformer(encoded, decoder_inputs, prompts)
        selection = outputs['selection']
        names = ('hidden_states', 'references', 'memory_text', 'text_token_mask')
        logits, boxes = model.bbox_head(*(outputs[name] for name in names))
    finally:
        model.train(was_training)
    # (num_stages, bs, num_queries, num_prompts or 4)
    logits = torch.cat([selection.logits.float()[None], logits.float()])
    boxes = torch.cat([selection.boxes_unact.float().sigmoid()[None], boxes.float()])
    # all that follows is little work, and full of questions
    logits, boxes, prompt_labels = to_cpu(logits, boxes, prompts.labels)
    views = []
    for image, sample in enumerate(batch_data_samples):
        never = torch.tensor([PADDING_LABEL, *prompts.negatives[image]])
        real = ~torch.isin(prompt_labels[image], never)
        if not real.any():
            raise ValueError(f'Image {sample.get("img_id", image)} has no prompt to look for.')
        labels = prompt_labels[image, real]
        mine, places = logits[:, image, :, real], boxes[:, image]
        views.append(
            QueryView(
                image_id=sample.get('img_id', image),
                image_path=str(sample.get('img_path', '')),
                class_names=tuple(class_names[label] for label in labels.tolist()),
                boxes=places.numpy(),
                scores=mine.sigmoid().numpy(),
                truth=_rewards(model.bbox_head, mine, places, labels, sample),
            )
        )
    return views


def view_dataset(
    model: nn.Module,
    dataset: Dataset,
    num_images: int = 2,
    image_ids: Sequence[int | str] | None = None,
) -> list[QueryView]:
    """Views of some images of a test set, with their ground truth, under the model's bank.

    The dataset is a single one: its pipeline prepares the images, its entries give the boxes. The
    images are so many, evenly spread over it, or those named. ValueError: it is a group, or lacks
    an image.
    """
    refuse_group(dataset)
    views = []
    for index in _chosen(dataset, num_images, image_ids):
        data = model.data_preprocessor(pseudo_collate([dataset[index]]), False)
        (sample,) = data['data_samples']
        sample.gt_instances = _annotated_boxes(dataset.get_data_info(index), sample)  # on the CPU
        views += view_queries(model, data['inputs'], [sample], dataset.metainfo['classes'])
    return views


def refuse_group(dataset: Dataset | ConfigDict) -> None:
    """Refuse a group of datasets, built or configured, with a ValueError."""
    if hasattr(dataset, 'datasets'):
        raise ValueError(
            'Queries are looked at on one dataset at a time: let the test set (for QueryViewHook '
            'the validation set) be a single dataset, for example a member of the group.'
        )


def _rewards(
    head: nn.Module, logits: Tensor, boxes: Tensor, prompt_labels: Tensor, sample: DetDataSample
) -> QueryRewards | None:
    """Rewards and advantages of one image; (num_stages, num_queries, ...) logits and boxes."""
    if 'gt_instances' not in sample:
        return None
    if getattr(head, 'assigner', None) is None:
        raise ValueError(
            'Rewards need the match cost: build the model with model.train_cfg.assigner, '
            'or leave gt_instances out.'
        )
    given_boxes, given_labels = to_cpu(sample.gt_instances.bboxes, sample.gt_instances.labels)
    positive = given_labels[:, None] == prompt_labels  # (num_gts, num_prompts)
    prompted = positive.any(dim=1)
    gts = InstanceData(
        bboxes=given_boxes[prompted],
        labels=given_labels[prompted],
        positive_maps=positive[prompted].float(),
        text_token_mask=torch.ones_like(positive[prompted]),
    )
    costs = head.assigner.cost(logits[:, None], boxes[:, None], [gts], [sample.img_shape])
    found = head.assigner.match(costs)
    matches = np.full(logits.shape[:2], -1)
    matches[found.layer.numpy(), found.query.numpy()] = found.gt.numpy()
    reward = head.query_reward(costs[0])
    grqo = GRQOLoss() if head.loss_grqo is None else head.loss_grqo
    kept = mute_last(torch.ones(logits.shape[1]), grqo.mute_share)
    advantage = mute_last(group_advantage(reward, grqo.eps), grqo.mute_share)
    (scale,) = box_scales([sample.img_shape], gts.bboxes.device)
    return QueryRewards(
        gt_boxes=(bbox_xyxy_to_cxcywh(gts.bboxes) / scale).numpy(),
        gt_prompts=gts.positive_maps.argmax(dim=1).numpy(),
        rewards=reward.numpy(),
        advantages=advantage.numpy(),
        matches=matches,
        num_kept=int(kept.sum()),
    )


def _chosen(dataset: Dataset, num_images: int, image_ids: Sequence[int | str] | None) -> list[int]:
    """Positions in the dataset."""
    if image_ids is None:
        last = len(dataset) - 1
        return np.linspace(0, last, min(num_images, last + 1)).round().astype(int).tolist()
    place = {str(dataset.get_data_info(index)['img_id']): index for index in range(len(dataset))}
    if missing := [str(image) for image in image_ids if str(image) not in place]:
        raise ValueError(f'The dataset has no image {", ".join(missing)}.')
    return [place[str(image)] for image in image_ids]


def _annotated_boxes(info: dict, sample: DetDataSample) -> InstanceData:
    """Ground truth of an entry, in pixels of the input; test pipelines differ in what they do."""
    instances = [item for item in info['instances'] if not item.get('ignore_flag')]
    height, width = sample.img_shape[:2]
    scale = torch.tensor([width / info['width'], height / info['height']]).repeat(2)
    boxes = torch.tensor([item['bbox'] for item in instances], dtype=torch.float32)
    labels = torch.tensor([item['bbox_label'] for item in instances], dtype=torch.long)
    return InstanceData(bboxes=boxes.reshape(-1, 4) * scale, labels=labels)
