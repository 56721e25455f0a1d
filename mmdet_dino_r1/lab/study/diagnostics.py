"""What the queries of a trained model do: figures of ours in which SFT and GRQO could differ.

All but ``token_recall_50`` and the objectness are of the last decoder layer. A query is *near* a
ground-truth box where their IoU is at least 0.5 and no other box overlaps it more; *matched* where
the one-to-one matching gives it a box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps

from ..query_view.view import QueryView, mean_or_none


def query_figures(views: Sequence[QueryView]) -> dict[str, float]:
    """The figures that docs/study.md explains: means over images of what each image's queries do.

    Each is the mean within an image, then over the images in which it is defined; one that is
    defined in none is left out. Images without boxes count nowhere. ValueError: a view has no
    ground truth.
    """
    if unknown := [str(view.image_id) for view in views if view.truth is None]:
        raise ValueError(f'Image {", ".join(unknown)} was viewed without ground truth.')
    found = [view for view in views if len(view.truth.gt_boxes)]
    of_images = [_of_rewards(view) | _of_boxes(view) for view in found]
    figures = dict(num_images=len(found), num_boxes=sum(len(view.truth.gt_boxes) for view in found))
    for name in of_images[0] if of_images else ():
        if known := [figure[name] for figure in of_images if figure[name] is not None]:
            figures[name] = float(np.mean(known))
    return figures


def _of_rewards(view: QueryView) -> dict[str, float | None]:
    """What follows from rewards and matches; None: not defined in this image."""
    last = view.summary()[-1]
    reward, matched = view.truth.rewards[-1], view.truth.matched[-1]
    return dict(
        reward_mean=last['reward'],
        reward_std=last['reward_std'],
        reward_kept=last['reward_kept'],
        reward_muted=last['reward_muted'],
        reward_matched=last['reward_matched'],
        reward_unmatched=mean_or_none(reward[~matched]),
        reward_overlap=_chance_above(reward[~matched], reward[matched]),
        objectness_matched=mean_or_none(view.objectness[matched]),
        objectness_unmatched=mean_or_none(view.objectness[~matched]),
    )


def _of_boxes(view: QueryView) -> dict[str, float | None]:
    """What follows from overlaps and preferred prompts; None: not defined in this image."""
    truth = view.truth
    token_iou = _overlaps(view.boxes[0], truth.gt_boxes)
    iou = _overlaps(view.boxes[-1], truth.gt_boxes)
    near, box = iou.max(axis=1) >= 0.5, iou.argmax(axis=1)  # (num_queries,) each
    right = near & (view.preferred[-1] == truth.gt_prompts[box])
    # of each box the scores of its right queries, best first
    num_gts = len(truth.gt_boxes)
    scores = [np.sort(view.best_scores[-1][right & (box == gt)])[::-1] for gt in range(num_gts)]
    counts = np.array([len(of_box) for of_box in scores])
    gaps = np.array([of_box[0] - of_box[1] for of_box in scores if len(of_box) > 1])
    return dict(
        objectness_auc=_chance_above(view.objectness[near], view.objectness[~near]),
        token_recall_50=mean_or_none(token_iou.max(axis=0) >= 0.5),
        query_recall_50=mean_or_none(iou.max(axis=0) >= 0.5),
        query_recall_75=mean_or_none(iou.max(axis=0) >= 0.75),
        queries_per_box_50=mean_or_none(counts),
        duplicates=mean_or_none(counts[counts > 0] - 1),
        score_gap=mean_or_none(gaps),
        right_class=mean_or_none(right[near]),
        near_unmatched=mean_or_none(near[~truth.matched[-1]]),
        effective_boxes=_effective_share(box[near], num_gts),
    )


def _overlaps(boxes: np.ndarray, gt_boxes: np.ndarray) -> np.ndarray:
    """(num_queries, num_gts) IoU of boxes clipped to the image, as those given out are.

    Scaling an axis changes no IoU, so normalised boxes need not be turned into pixels. In
    thousandths of the image no box is so small that it would feel mmdet's eps.
    """
    corners = [
        bbox_cxcywh_to_xyxy(torch.as_tensor(part, dtype=torch.float64)).clamp(0, 1) * 1000
        for part in (boxes, gt_boxes)
    ]
    return bbox_overlaps(*corners).numpy()


def _chance_above(these: np.ndarray, others: np.ndarray) -> float | None:
    """Probability that one of these is higher than one of the others, ties half."""
    signs = mean_or_none(np.sign(these[:, None] - others))
    return None if signs is None else (1 + signs) / 2


def _effective_share(boxes: np.ndarray, num_gts: int) -> float | None:
    """exp(entropy) of box indices, by the number of boxes."""
    if not len(boxes):
        return None
    share = np.unique(boxes, return_counts=True)[1] / len(boxes)
    return float(np.exp(-(share * np.log(share)).sum()) / num_gts)
