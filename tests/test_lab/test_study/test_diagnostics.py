"""Figures by hand, and those of a tiny model against what its own detections give."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CONFIGS, build_tiny
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from pycocotools import mask

from mmdet_dino_r1.lab.query_view.collect import view_dataset
from mmdet_dino_r1.lab.query_view.view import QueryRewards, QueryView
from mmdet_dino_r1.lab.study.diagnostics import query_figures
from mmdet_dino_r1.structures import PromptBank

# A box 0.2 wide and one shifted sideways by d overlap by (0.2 - d) / (0.2 + d):
# 0.02 gives 9/11 = 0.818, 0.04 gives 2/3, 0.1 gives 1/3.
A, B = [0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.2, 0.2]


def shifted(box: list, by: float) -> list:
    return [box[0] + by, *box[1:]]


def make_view(selection: list, layer: list, truth: dict) -> QueryView:
    """Objectness 0.9, 0.7, 0.6, 0.4, and the last layer's scores of prompts 0 and 1."""
    scores = [[0.9, 0.1], [0.1, 0.7], [0.6, 0.1], [0.4, 0.1]]
    return QueryView(
        image_id=1,
        image_path='1.png',
        class_names=('cat', 'dog'),
        boxes=np.array([selection, layer]),
        scores=np.array([scores, [[0.8, 0.1], [0.1, 0.2], [0.6, 0.3], [0.5, 0.2]]]),
        truth=QueryRewards(**truth, advantages=np.zeros((2, 4)), num_kept=3),
    )


def two_boxes() -> QueryView:
    """A cat in A, a dog in B.

    Last layer: queries 0 and 3 are near A and prefer the cat, query 2 is near B and prefers the
    cat too, query 1 is near nothing. Queries 0 and 2 are matched.
    """
    return make_view(
        selection=[shifted(A, 0.04), shifted(B, 0.1), shifted(B, 0.1), [0.5, 0.5, 0.1, 0.1]],
        layer=[shifted(A, 0.02), [0.5, 0.5, 0.1, 0.1], shifted(B, 0.04), shifted(A, -0.04)],
        truth=dict(
            gt_boxes=np.array([A, B]),
            gt_prompts=np.array([0, 1]),
            rewards=np.array([[9.0, 9, 9, 9], [4, -4, 0, 2]]),
            matches=np.array([[-1, -1, -1, -1], [0, -1, 1, -1]]),
        ),
    )


def nothing_found() -> QueryView:
    """One box that no query is near, though one is matched to it."""
    far = [[0.5, 0.5, 0.1, 0.1]] * 4
    return make_view(
        far,
        far,
        truth=dict(
            gt_boxes=np.array([A]),
            gt_prompts=np.array([0]),
            rewards=np.full((2, 4), -3.0),
            matches=np.array([[0, -1, -1, -1], [0, -1, -1, -1]]),
        ),
    )


def test_figures_by_hand():
    assert query_figures([two_boxes()]) == pytest.approx(
        dict(
            num_images=1,
            num_boxes=2,
            reward_mean=0.5,  # (4 - 4 + 0 + 2) / 4
            reward_std=math.sqrt(35 / 3),  # 3.5² + 4.5² + 0.5² + 1.5² = 35, over 4 - 1
            reward_kept=0,  # 4, -4, 0
            reward_muted=2,
            reward_matched=2,  # 4, 0
            reward_unmatched=-1,  # -4, 2
            reward_overlap=1 / 4,  # of four pairs only 2 > 0
            objectness_matched=0.75,  # 0.9, 0.6
            objectness_unmatched=0.55,  # 0.7, 0.4
            objectness_auc=1 / 3,  # near: 0.9, 0.6, 0.4; not: 0.7
            token_recall_50=1 / 2,  # A; B's two tokens reach 1/3
            query_recall_50=1,
            query_recall_75=1 / 2,  # A by query 0
            queries_per_box_50=1,  # A has two, B none that prefers the dog
            duplicates=1,  # of A alone
            score_gap=0.3,  # 0.8 - 0.5
            right_class=2 / 3,
            near_unmatched=1 / 2,  # query 3, not query 1
            # two near A, one near B: exp(H) = (3/2)^(2/3) * 3^(1/3) = 3 / 4^(1/3), of two boxes
            effective_boxes=3 / 4 ** (1 / 3) / 2,
        )
    )


def test_images_are_averaged_where_a_figure_is_defined():
    no_boxes = make_view(
        [A] * 4,
        [A] * 4,
        truth=dict(
            gt_boxes=np.zeros((0, 4)),
            gt_prompts=np.zeros(0, int),
            rewards=np.zeros((2, 4)),
            matches=np.full((2, 4), -1),
        ),
    )
    alone, both = query_figures([two_boxes()]), query_figures([two_boxes(), nothing_found()])
    assert query_figures([two_boxes(), no_boxes]) == alone
    assert (both['num_images'], both['num_boxes']) == (2, 3)
    assert both['reward_mean'] == (0.5 - 3) / 2
    assert both['reward_overlap'] == (1 / 4 + 1 / 2) / 2  # equal rewards count half
    assert both['query_recall_50'] == 1 / 2 and both['queries_per_box_50'] == 1 / 2
    conditional = {'objectness_auc', 'duplicates', 'score_gap', 'right_class', 'effective_boxes'}
    assert all(both[name] == alone[name] for name in conditional)
    assert set(alone) - set(query_figures([nothing_found()])) == conditional
    assert query_figures([no_boxes]) == dict(num_images=0, num_boxes=0)


def test_a_query_is_near_the_box_it_overlaps_most():
    """Two cats that overlap by 2/3: each query counts for one of them."""
    twin = shifted(A, 0.04)
    view = make_view(
        [A] * 4,
        [A, twin, twin, twin],
        truth=dict(
            gt_boxes=np.array([A, twin]),
            gt_prompts=np.array([0, 0]),
            rewards=np.zeros((2, 4)),
            matches=np.array([[0, 1, -1, -1], [0, 1, -1, -1]]),
        ),
    )
    figures = query_figures([view])
    # query 1 prefers the dog: A has query 0, the twin queries 2 and 3
    assert figures['queries_per_box_50'] == 1.5 and figures['duplicates'] == 0.5
    assert figures['token_recall_50'] == 1  # a token may cover both


def test_a_box_of_two_pixels_counts():
    tiny = [0.5, 0.5, 0.0005, 0.0005]
    truth = dict(
        gt_boxes=np.array([tiny], np.float32),
        gt_prompts=np.array([0]),
        rewards=np.zeros((2, 4)),
        matches=np.zeros((2, 4), int),
    )
    assert query_figures([make_view([tiny] * 4, [tiny] * 4, truth)])['query_recall_75'] == 1


def test_views_need_ground_truth():
    with pytest.raises(ValueError, match='Image 1 was viewed without ground truth'):
        query_figures([replace(two_boxes(), truth=None)])


class Relabelled:
    """A test set whose boxes are others.

    Args:
        dataset: a tiny one.
        boxes: per image (x, y, width, height) in pixels of the file.
        labels: per image.
    """

    def __init__(self, dataset, boxes, labels):
        self.dataset, self.boxes, self.labels = dataset, boxes, labels
        self.metainfo = dataset.metainfo

    def __len__(self):
        return len(self.boxes)

    def __getitem__(self, index):
        return self.dataset[index]

    def get_data_info(self, index):
        pairs = zip(self.boxes[index].tolist(), self.labels[index].tolist(), strict=True)
        instances = [
            dict(bbox=[x, y, x + w, y + h], bbox_label=label) for (x, y, w, h), label in pairs
        ]
        return self.dataset.get_data_info(index) | dict(instances=instances)


def as_queries(detections) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (x, y, width, height) and scores of ten queries, which detect each prompt once."""
    boxes, query = detections.bboxes.unique(dim=0, return_inverse=True)
    scores = torch.zeros(10, 4)
    scores[query, detections.labels] = detections.scores
    boxes = boxes.double().numpy()
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]), scores.numpy()


def count(boxes: np.ndarray, scores: np.ndarray, gts: np.ndarray, labels: list) -> dict:
    """Some figures of an image, query by query, in pixels and by COCO's own IoU."""
    iou = mask.iou(boxes, gts, np.zeros(len(gts)))
    near, right = 0, [[] for _ in gts]
    for overlaps, score in zip(iou, scores, strict=True):
        near += max(overlaps) >= 0.5
        if max(overlaps) >= 0.5 and score.argmax() == labels[overlaps.argmax()]:
            right[overlaps.argmax()].append(max(score))
    gaps = [max(of_box) - sorted(of_box)[-2] for of_box in right if len(of_box) > 1]
    return dict(
        query_recall_50=sum(iou.max(axis=0) >= 0.5) / len(gts),
        query_recall_75=sum(iou.max(axis=0) >= 0.75) / len(gts),
        queries_per_box_50=sum(map(len, right)) / len(gts),
        duplicates=np.mean([len(of_box) - 1 for of_box in right if of_box]),
        score_gap=np.mean(gaps) if gaps else np.nan,
        right_class=sum(map(len, right)) / near,
    )


def test_a_model_against_its_own_detections(tiny_shapes):
    """Boxes are put where a random model detects, so that there is something to count."""
    cfg = Config.fromfile(CONFIGS / 'vis_gdino_r18_shapes.py').test_dataloader.dataset
    cfg.data_root = f'{tiny_shapes}/'
    dataset = DATASETS.build(cfg)
    model = build_tiny(test_cfg=dict(max_per_img=40)).eval()  # ten queries by four prompts
    for branch in model.bbox_head.reg_branches:  # boxes near their anchors, but larger
        branch[-1].weight.data *= 0.02
        branch[-1].bias.data[2:] += 1.1
    names = dataset.metainfo['classes']
    model.set_prompt_bank(PromptBank(tuple(names), torch.randn(len(names), 256)))
    expected, truth = [], []
    for index in range(2):
        with torch.no_grad():
            (sample,) = model.test_step(pseudo_collate([dataset[index]]))
        boxes, scores = as_queries(sample.pred_instances)
        gts, labels = boxes[1::3] * [1, 1, 0.85, 0.85], scores[1::3].argmax(axis=1)
        expected.append(count(boxes, scores, gts, labels))
        truth.append((gts, labels))
    figures = query_figures(view_dataset(model, Relabelled(dataset, *zip(*truth, strict=True)), 2))
    assert (figures['num_images'], figures['num_boxes']) == (2, 6)
    for name in expected[0]:
        mean = np.nanmean([of_image[name] for of_image in expected])
        assert 0 < mean == pytest.approx(figures[name], rel=1e-3), name
