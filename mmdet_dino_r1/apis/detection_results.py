"""Detections of an image: which are kept, and how they are written down."""

from __future__ import annotations

import os
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from pathlib import Path

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from ..utils.device_copy import to_cpu


def fetch(samples: list[DetDataSample]) -> list[DetDataSample]:
    """The samples of a batch with all that they hold moved to the CPU, at once and in place."""
    instances = [value for s in samples for value in s.values() if isinstance(value, InstanceData)]
    places = [
        (each, key) for each in instances for key, value in each.items() if torch.is_tensor(value)
    ]
    moved = to_cpu(*(each[key] for each, key in places))
    for (each, key), value in zip(places, moved, strict=True):
        each[key] = value
    return samples


def keep_best(found: InstanceData, score_thr: float, top_k: int | None) -> InstanceData:
    """Of what was found, best first: from ``score_thr`` on, at most ``top_k`` of each class."""
    found = found[found.scores >= score_thr]
    if top_k is None:
        return found
    keep = torch.zeros_like(found.labels, dtype=torch.bool)
    for label in found.labels.unique():
        keep[(found.labels == label).nonzero()[:top_k]] = True
    return found[keep]


class Kept:
    """Which detections of an image are kept, and the best of each class in all images.

    Args:
        num_classes: how many.
        score_thr: lowest score.
        top_k: most of a class and image; None: no limit.

    Attributes:
        best: (num_classes,) highest scores so far, kept or not; 0 for a class that has none.
    """

    def __init__(self, num_classes: int, score_thr: float, top_k: int | None) -> None:
        self.best = torch.zeros(num_classes)
        self.rule = score_thr, top_k

    def __call__(self, found: InstanceData) -> InstanceData:
        """Those of one image that are kept."""
        self.best.scatter_reduce_(0, found.labels, found.scores.float(), 'amax')
        return keep_best(found, *self.rule)


def spread_colours(number: int) -> list[tuple[int, int, int]]:
    """As many colours for drawing, RGB in 0..255, their hues as far apart as they can be."""
    shares = [hsv_to_rgb(index / number, 0.9, 0.85) for index in range(number)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in shares]


def to_coco(results: dict, root: str | Path | None = None) -> dict:
    """Results as a COCO data set: the detections stand as annotations with a ``score``.

    Ids count from 1; images that could not be read are left out. ``annotations`` alone is what
    COCO calls a result file (pycocotools' ``loadRes``). The empty ``segmentation`` says that there
    are boxes only; some importers insist on the key.

    Args:
        results: what :class:`DINOR1Inferencer` returned.
        root: folder that the images' ``file_name`` are relative to; None leaves the paths as they
            were given. URLs stay as they are.

    Returns:
        ``images``, ``categories`` and ``annotations``; boxes are (x, y, width, height) in pixels.

    Raises:
        ValueError: the results are data samples.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for found in results['predictions']:
        if found is None:
            continue
        if not isinstance(found, dict):
            raise ValueError('to_coco needs plain results: call with return_datasamples=False.')
        name = found['image']
        if root is not None and '://' not in name:
            name = Path(os.path.relpath(name, root)).as_posix()
        size = dict(height=found['height'], width=found['width'])
        images.append(dict(id=len(images) + 1, file_name=name, **size))
        for label, score, box in zip(
            found['labels'], found['scores'], found['bboxes'], strict=True
        ):
            annotations.append(
                coco_annotation(len(annotations) + 1, len(images), label + 1, box, score)
            )
    categories = [dict(id=label, name=name) for label, name in enumerate(results['classes'], 1)]
    return dict(images=images, categories=categories, annotations=annotations)


def coco_annotation(
    id: int, image_id: int, category_id: int, box: Sequence[float], score: float
) -> dict:
    """A detection as COCO has it, from a ``box`` (x1, y1, x2, y2) in pixels; to 1/1000 pixel."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    return dict(
        id=id,
        image_id=image_id,
        category_id=category_id,
        bbox=[round(value, 3) for value in (x1, y1, width, height)],
        area=round(width * height, 3),
        segmentation=[],
        iscrowd=0,
        score=score,
    )
