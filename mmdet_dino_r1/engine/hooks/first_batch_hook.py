"""What loaders give: whether labels have one meaning, and a picture of the first batch (ours)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import cv2
import numpy as np
from mmdet.evaluation import CocoMetric
from mmdet.registry import HOOKS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from ...config.class_lists import check_image_ids, one_class_list
from ...utils.fonts import drawable, write_texts
from ...utils.wrappers import unwrapped

TRUTH, EXEMPLAR = (0, 200, 0), (0, 128, 255)  # green, orange; BGR as all here
_LONGEST = 640  # side of an image in the picture, in pixels
_CAPTION = 22  # height of the line above it


@HOOKS.register_module()
class FirstBatchHook(Hook):
    """Write ``first_batch.jpg`` beside the log of each training, before the first losses.

    Before that, a run is refused whose labels stand for other classes in one file than in another.

    The picture shows the images as the network gets them, their boxes with class names in green,
    and in orange the exemplars drawn for the step. No random number is drawn, and what goes wrong
    with the picture is a warning.

    Args:
        max_images: how many images of the main process's batch are shown; 0: no picture.
    """

    # After ReferenceModelHook, which copies the model, and GradientShareHook, which runs it.
    priority = 'VERY_LOW'

    def __init__(self, max_images: int = 8) -> None:
        self.max_images = max_images
        self._is_due = False

    def before_run(self, runner: Runner) -> None:
        """Each loader's labels have one meaning, or each member its own metric; else ValueError."""
        for split in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{split}_loop')
            if not isinstance(loop, BaseLoop):
                continue  # not built: this run does without
            dataset = loop.dataloader.dataset
            if split == 'train' or type(loop.evaluator) is Evaluator:
                one_class_list(dataset, split)
                if split != 'train' and any(
                    isinstance(m, CocoMetric) for m in loop.evaluator.metrics
                ):
                    check_image_ids(dataset, split)
            metas = getattr(dataset, 'metainfo', None)
            if split == 'train' and isinstance(metas, list):
                # mmdet's tools read one dict in a checkpoint, not those of all members
                dataset._metainfo = {
                    key: value
                    for key, value in metas[0].items()
                    if all(key in meta and meta[key] == value for meta in metas)
                }

    def before_train(self, runner: Runner) -> None:
        """A picture is due."""
        self._is_due = self.max_images > 0 and is_main_process()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Watch, in the first step, what detector and prompt encoder are called with."""
        due, self._is_due = self._is_due, False
        # a detector without it is another one, or in an unknown wrapper
        if not due or not hasattr(detector := unwrapped(runner.model), 'prompt_encoder'):
            return
        step = {}

        def watch(module: nn.Module, args: tuple, kwargs: dict) -> None:
            step.update(kwargs)
            if module is detector.prompt_encoder:
                for handle in handles:
                    handle.remove()
                self._write(runner, detector.data_preprocessor, step)

        watched = (detector, detector.prompt_encoder)
        handles = [m.register_forward_pre_hook(watch, with_kwargs=True) for m in watched]

    def _write(self, runner: Runner, preprocessor: nn.Module, step: dict) -> None:
        path = Path(runner.log_dir) / 'first_batch.jpg'
        try:
            classes = one_class_list(runner.train_dataloader.dataset)
            images = as_pixels(step['inputs'][: self.max_images], preprocessor)
            samples = step['data_samples'][: self.max_images]
            picture = draw_batch(images, samples, step['image_index'], step['boxes'], classes)
            path.write_bytes(cv2.imencode('.jpg', picture)[1].tobytes())
            print_log(f'First batch, boxes green, exemplars orange: {path}', logger='current')
        except Exception as error:  # whatever it is, the training is worth more
            told = f'No picture of the first batch: {type(error).__name__}: {error}'
            print_log(told, logger='current', level=logging.WARNING)


def as_pixels(batch_inputs: Tensor, preprocessor: nn.Module) -> np.ndarray:
    """(bs, 3, H, W) network input -> (bs, H, W, 3) uint8, by an ``ImgDataPreprocessor``."""
    if preprocessor._enable_normalize:
        batch_inputs = batch_inputs * preprocessor.std + preprocessor.mean
    if preprocessor._channel_conversion:
        batch_inputs = batch_inputs.flip(1)
    return batch_inputs.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().contiguous().numpy()


def draw_batch(
    images: np.ndarray,
    samples: SampleList,
    image_index: Tensor,
    boxes: Tensor,
    classes: Sequence[str] = (),
) -> np.ndarray:
    """The images of a batch, (bs, H, W, 3) uint8, side by side with their boxes.

    The exemplars' ``boxes`` (num_exemplars, 4) are normalised (cx, cy, w, h), ``image_index``
    (num_exemplars,) tells the image of each. One that is no box of its image is left out.
    """
    scale = _LONGEST / max(images.shape[1:3])
    height, width = (round(side * scale) for side in images.shape[1:3])
    exemplars, image_index = bbox_cxcywh_to_xyxy(boxes.detach().float()).cpu(), image_index.cpu()
    classes, tiles = drawable(classes), []
    for index, (image, sample) in enumerate(zip(images, samples, strict=True)):
        truth, labels = sample.gt_instances.bboxes.cpu(), sample.gt_instances.labels.tolist()
        chosen = exemplars[image_index == index] * truth.new_tensor(sample.img_shape[1::-1] * 2)
        chosen = chosen[((chosen[:, None] - truth).abs() < 1).all(-1).any(-1)]
        tile = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        for some, colour, thickness in ((truth, TRUTH, 2), (chosen, EXEMPLAR, 5)):
            for x1, y1, x2, y2 in (some * scale).round().int().tolist():
                cv2.rectangle(tile, (x1, y1), (x2, y2), colour, thickness)
        tile = cv2.copyMakeBorder(tile, _CAPTION, 0, 0, 0, cv2.BORDER_CONSTANT)
        name = Path(sample.get('img_path') or str(sample.get('img_id'))).name
        texts = [(3, 3, f'{name}: {len(truth)} boxes, {len(chosen)} exemplars')]
        for (x, y, *_), label in zip((truth * scale).int().tolist(), labels, strict=True):
            shown = classes[label] if label < len(classes) else str(label)
            texts.append((x + 5, y + _CAPTION + 4, shown))
        look = (13, (255, 255, 255))  # white, outlined in black
        tiles.append(write_texts(tile, [(*text, *look) for text in texts], outline=(0, 0, 0)))
    columns = ceil(len(tiles) ** 0.5)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[first : first + columns]) for first in range(0, len(tiles), columns)]
    return np.vstack(rows)
