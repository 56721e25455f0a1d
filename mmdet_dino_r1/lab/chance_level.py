"""AP50 of a detector that finds every box and only guesses the classes."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def chance_ap50(ann_file: str, every_class: bool, draws: int = 10, seed: int = 0) -> float:
    """AP50 in [0, 1] at chance, by COCO's own evaluation: a mean over random draws.

    The detections are the boxes of the ground truth, without crowds, each as every class with a
    random score (as a detector that keeps many detections per image would) or as one class at
    random. ValueError: the file has no box.
    """
    rng = np.random.default_rng(seed)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = COCO(ann_file)
        boxes = [ann for ann in truth.dataset['annotations'] if not ann.get('iscrowd')]
        if not boxes:
            raise ValueError(f'{ann_file} has no boxes, so there is no chance level.')
        cat_ids = np.array(truth.getCatIds())
        guesses = len(cat_ids) if every_class else 1
        values = []
        for _ in range(draws):
            detections = np.empty((len(boxes), guesses, 7))  # image, xywh, score, class
            detections[..., 0] = [[ann['image_id']] for ann in boxes]
            detections[..., 1:5] = [[ann['bbox']] for ann in boxes]
            detections[..., 5] = rng.random((len(boxes), guesses))
            detections[..., 6] = cat_ids if every_class else rng.choice(cat_ids, (len(boxes), 1))
            values.append(_ap50(truth, detections.reshape(-1, 7)))
    return float(np.mean(values))


def _ap50(truth: COCO, detections: np.ndarray) -> float:
    """AP at IoU 0.5 over all areas, of detections in pycocotools' array form."""
    evaluation = COCOeval(truth, truth.loadRes(detections), 'bbox')
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.params.areaRng = [[0, 1e10]]
    evaluation.params.areaRngLbl = ['all']
    # as many as CocoMetric keeps in its AP
    evaluation.params.maxDets = [1000]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision']
    return float(precision[precision > -1].mean())
