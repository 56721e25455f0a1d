"""What is timed: random images with random boxes, the same for every model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData


@dataclass(frozen=True)
class Workload:
    """The size of a step: images in pixels, class names, boxes of each image."""

    height: int = 800
    width: int = 1333
    batch_size: int = 2
    classes: int = 20
    boxes: int = 10

    def training_batch(self, seed: int = 0) -> dict:
        """A batch as a data loader gives it.

        Boxes (x1, y1, x2, y2) measure 5 to 50 % of each side. Labels run through the classes
        image by image, so that as many of them are present as there are boxes for.
        """
        generator = torch.Generator().manual_seed(seed)
        side = torch.tensor([self.width, self.height, self.width, self.height])
        samples = []
        for image in range(self.batch_size):
            size = 0.05 + 0.45 * torch.rand(self.boxes, 2, generator=generator)
            corner = torch.rand(self.boxes, 2, generator=generator) * (1 - size)
            labels = (torch.arange(self.boxes) + image * self.boxes) % self.classes
            sample = self._sample()
            sample.gt_instances = InstanceData(
                bboxes=torch.cat([corner, corner + size], dim=1) * side, labels=labels
            )
            samples.append(sample)
        return dict(inputs=self._images(self.batch_size, generator), data_samples=samples)

    def test_batch(self, seed: int = 0) -> dict:
        """One image without ground truth."""
        generator = torch.Generator().manual_seed(seed)
        return dict(inputs=self._images(1, generator), data_samples=[self._sample()])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of one token each."""
        return tuple(class_name(index) for index in range(self.classes))

    def _images(self, count: int, generator: torch.Generator) -> list[torch.Tensor]:
        shape = (count, 3, self.height, self.width)
        return list(torch.randint(256, shape, dtype=torch.uint8, generator=generator))

    def _sample(self) -> DetDataSample:
        shape = (self.height, self.width)
        meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
        # what mmdet's Grounding DINO reads
        meta |= dict(text=self.class_names, custom_entities=True)
        return DetDataSample(metainfo=meta)


def class_name(index: int) -> str:
    """A made-up name that tokenizers take for one word."""
    return f'c{index}'
