"""Which entry of the dataset a sample of a test batch is, and what that entry says."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import defaultdict

from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch.utils.data import DataLoader

from ...structures.prompt_instances import prompt_instances


class SampleLookup:
    """Follows a loader batch by batch, by its own batch sampler.

    Data samples say neither which member of a ``ConcatDataset`` they are of nor what their boxes
    were before the pipeline; the dataset does. The loader's sampler must give the same order twice.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.dataset = loader.dataset
        self._batches = list(loader.batch_sampler)

    def entries(self, batch_idx: int, samples: list[DetDataSample]) -> list[tuple[int, dict]]:
        """Position of the member in a ``ConcatDataset``, and ``data_info``, of each sample.

        Raises:
            RuntimeError: the samples are others than the sampler promised.
        """
        found = []
        for index, sample in zip(self._batches[batch_idx], samples, strict=True):
            info = self.dataset.get_data_info(index)
            if info['img_id'] != sample.img_id:
                raise RuntimeError(
                    f'Batch {batch_idx} holds image {sample.img_id}, its sampler promised '
                    f'{info["img_id"]}. Prompts per image or per dataset need a sampler '
                    "that gives the same order twice, as dict(type='DefaultSampler', "
                    'shuffle=False) does.'
                )
            found.append((bisect_right(getattr(self.dataset, 'cumulative_sizes', ()), index), info))
        return found


def interactive_prompts(info: dict, sample: DetDataSample, seed: int) -> InstanceData:
    """One random ground-truth box of each class present (protocol Visual-I).

    The choice depends on seed, image id and class alone. ``info`` is the image's entry in the
    dataset, ``sample`` tells the size of the network input.

    Returns:
        ``labels`` (n,) long, ascending, and ``bboxes`` (n, 4) in pixels of the network input.
    """
    by_label = defaultdict(list)
    for instance in info['instances']:
        if not instance.get('ignore_flag'):
            by_label[instance['bbox_label']].append(instance['bbox'])
    labels = sorted(by_label)
    boxes = [
        random.Random(f'{seed}/{info["img_id"]}/{label}').choice(sorted(by_label[label]))
        for label in labels
    ]
    return prompt_instances(boxes, labels, (info['height'], info['width']), sample.img_shape)
