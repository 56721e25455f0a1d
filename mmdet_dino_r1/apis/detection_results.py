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


class CallResults:
    """What a call of the inferencer gives out, filled image by image.

    Args:
        num_images: how many it was given.
        classes: names in label order.

    Attributes:
        predictions: of each image; None where it was broken.
        pictures: (h, w, 3) RGB array of each image, None where it was not drawn.
        broken: message by the name of the image.
    """

    def __init__(self, num_images: int, classes: Sequence[str]) -> None:
        self.predictions: list = [None] * num_images
        self.pictures: list = [None] * num_images
        self.broken: dict[str, str] = {}
        self._classes = classes
        self._best = torch.zeros(len(classes))

    def note_scores(self, found: InstanceData) -> None:
        """Keep the highest score of each class, of all that was found in an image."""
        self._best.scatter_reduce_(0, found.labels, found.scores.float(), 'amax')

    def as_dict(self, with_pictures: bool) -> dict:
        """What the call returns; ``visualization`` is empty without pictures."""
        return dict(
            predictions=self.predictions,
            visualization=self.pictures if with_pictures else [],
            classes=self._classes,
            best_scores=dict(zip(self._classes, self._best.tolist(), strict=True)),
            broken=self.broken,
        )


def fetch(samples: Sequence[DetDataSample]) -> None:
    """Move what samples of a batch hold to the CPU, all at once, in place."""
    instances = [value for s in samples for value in s.values() if isinstance(value, InstanceData)]
    places = [
        (each, key) for each in instances for key, value in each.items() if torch.is_tensor(value)
    ]
    moved = to_cpu(*(each[key] for each, key in places))
    for (each, key), value in zip(places, moved, strict=True):
        each[key] = value


def keep_best(found: InstanceData, score_thr: float, top_k: int | None) -> InstanceData:
    """Of what was ``found``, best first: from ``score_thr`` on, at most ``top_k`` of each class."""
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


def to_dict(
    name: str, image_size: tuple[int, int], found: InstanceData, class_names: Sequence[str]
) -> dict:
    """Detections as plain values, for JSON.

    Args:
        name: of the image.
        image_size: height and width, in pixels.
        found: its detections.
        class_names: what the labels stand for.
    """
    labels = found.labels.tolist()
    return dict(
        image=name,
        height=image_size[0],
        width=image_size[1],
        labels=labels,
        class_names=[class_names[label] for label in labels],
        scores=found.scores.tolist(),
        bboxes=found.bboxes.tolist(),
    )


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
    images, annotations = [], []
    for prediction in results['predictions']:
        if prediction is None:
            continue
        if not isinstance(prediction, dict):
            raise ValueError('to_coco needs plain results: call with return_datasamples=False.')
        name = prediction['image']
        image_id = len(images) + 1
        images.append(
            dict(
                id=image_id,
                file_name=name if root is None else _relative(name, root),
                height=prediction['height'],
                width=prediction['width'],
            )
        )
        for label, score, (x1, y1, x2, y2) in zip(
            prediction['labels'], prediction['scores'], prediction['bboxes'], strict=True
        ):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    segmentation=[],
                    iscrowd=0,
                    score=score,
                )
            )
    categories = [dict(id=label + 1, name=name) for label, name in enumerate(results['classes'])]
    return dict(images=images, categories=categories, annotations=annotations)


def _relative(name: str, root: str | Path) -> str:
    """A path as seen from a folder, with '/'; a URL as it is."""
    return name if '://' in name else Path(os.path.relpath(name, root)).as_posix()
