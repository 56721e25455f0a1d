"""Detections of an image: which are kept, and how they are written down."""

from __future__ import annotations

import os
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
        for label, score, (x1, y1, x2, y2) in zip(
            found['labels'], found['scores'], found['bboxes'], strict=True
        ):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=len(images),
                    category_id=label + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    segmentation=[],
                    iscrowd=0,
                    score=score,
                )
            )
    categories = [dict(id=label, name=name) for label, name in enumerate(results['classes'], 1)]
    return dict(images=images, categories=categories, annotations=annotations)
