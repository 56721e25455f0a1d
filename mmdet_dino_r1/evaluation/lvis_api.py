"""What of lvis-api is changed for `LVISBoxMetric`; imported where lvis is needed only."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
from lvis import LVIS, LVISEval, LVISResults

from ..structures.coco_file import read_coco

# what COCO's files lack
_LVIS_KEYS = {
    'images': ('neg_category_ids', 'not_exhaustive_category_ids'),
    'categories': ('frequency',),
}

_REMEDY = (
    'this is not an LVIS annotation file (such as lvis_v1_val.json). Sets in COCO format are '
    'evaluated by CocoJsonMetric.'
)


class GroundTruth(LVIS):
    """Annotations, checked to be LVIS, without their masks."""

    def _load_json(self, path: str) -> dict:
        data = read_coco(Path(path).read_bytes(), path)
        for part, keys in _LVIS_KEYS.items():
            for entry in data[part]:
                if missing := [key for key in keys if key not in entry]:
                    of_id = f'{part}: id {entry["id"]!r}'
                    raise ValueError(f'{path}: {of_id} lacks {missing[0]!r}: {_REMEDY}')
        for annotation in data['annotations']:
            annotation.pop('segmentation', None)  # most of the file, and of no use for boxes
        return data

    def judged_pairs(self) -> np.ndarray:
        """Pairs of image and category known to be present or absent, int ``(n, 2)``."""
        present = [(ann['image_id'], ann['category_id']) for ann in self.dataset['annotations']]
        absent = [
            (image['id'], category)
            for image in self.dataset['images']
            for category in image['neg_category_ids']
        ]
        return np.array(present + absent, np.int64).reshape(-1, 2)


class Detections(LVISResults):
    """Detections beside the ground truth, without a copy of it.

    Args:
        truth: Of the same images.
        annotations: Detections as lvis-api has them, perhaps none; they get ids and areas.
    """

    def __init__(self, truth: LVIS, annotations: list[dict]) -> None:
        self.logger = truth.logger
        for index, annotation in enumerate(annotations, start=1):
            _, _, width, height = annotation['bbox']
            annotation.update(id=index, area=width * height)
        self.dataset = truth.dataset | {'annotations': annotations}
        self._create_index()


class Evaluation(LVISEval):
    """lvis-api's evaluation, also under a recent numpy."""

    # the same function beside an `np` with `np.float`, which numpy dropped in 1.24
    accumulate = types.FunctionType(
        LVISEval.accumulate.__code__,
        LVISEval.accumulate.__globals__
        | {'np': types.SimpleNamespace(**vars(np) | {'float': float})},
    )

    def _get_gt_dt(self, img_id: int, cat_id: int) -> tuple[list, list]:
        # without an entry for each of millions of pairs that nobody looks at
        pair = img_id, cat_id
        return self._gts.get(pair, []), self._dts.get(pair, [])
