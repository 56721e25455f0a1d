"""The images that prompts are tuned on: exemplars to begin with, and all boxes to be found.

Boxes are (x1, y1, x2, y2) in pixels: of the image file in entries, of the network input in data
samples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mmdet.registry import DATASETS

from ..structures.prompt_instances import prompt_instances
from .exemplar_dataset import ExemplarDataset


@DATASETS.register_module()
class TuningDataset(ExemplarDataset):
    """An ``ExemplarDataset`` whose samples have ``gt_instances``, too: all boxes to be found.

    These are the boxes of the classes on an image with sides of a pixel or more inside it,
    exemplars or not; crowds and ignored ones are left out. What has no such box is background, so
    the classes' annotations should be complete on these images.

    With ``shots`` the images are those that carry a chosen exemplar. With None they are all of the
    file: an image without an annotation, or with boxes of other classes only, is background.
    Entries have ``target_labels`` and ``target_boxes`` beside the exemplars.
    """

    def load_data_list(self) -> list[dict]:
        """One entry per image; errors are those of the parent."""
        entries = super().load_data_list()
        targets: dict = {entry['img_id']: ([], []) for entry in entries}
        for label, name in enumerate(self.metainfo['classes']):
            for image_id, box in self._candidates[name]:
                if image_id in targets:
                    targets[image_id][0].append(label)
                    targets[image_id][1].append(box)
        for entry in entries:
            entry['target_labels'], entry['target_boxes'] = targets[entry['img_id']]
        del self._candidates
        return entries

    def candidates(self, coco: dict, categories: dict[int, str]) -> dict[str, list]:
        """Those of the parent, which are also what is to be found."""
        self._candidates = super().candidates(coco, categories)
        return self._candidates

    def held(self, images: Mapping, chosen: Mapping) -> Collection:
        """All images, unless exemplars are counted."""
        return images if self.shots is None else chosen

    def prepare_data(self, idx: int) -> dict:
        """As the parent, with ``gt_instances``; its errors."""
        data, info = super().prepare_data(idx), self.get_data_info(idx)
        sample, size = data['data_samples'], (info['height'], info['width'])
        boxes, labels = info['target_boxes'], info['target_labels']
        sample.gt_instances = prompt_instances(boxes, labels, size, sample.img_shape)
        return data
