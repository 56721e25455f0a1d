"""Detection by visual prompts in images, without a data set."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.visualization import Visualizer
from torch import nn

from ..config.loading import image_pipeline, load_config
from ..config.tree import type_name
from ..engine.bank_builder import weights_fingerprint
from ..structures import PromptBank, load_prompt_bank
from ..utils.progress import with_progress
from .detection_results import Kept, fetch, spread_colours
from .distractors import split_distractors, takes_negatives
from .image_input import (
    ImageReader,
    PreparedImage,
    UnreadableImage,
    list_images,
    picture_names,
    same_size_batches,
)
from .reference_bank import encode_references
from .reference_prompts import POINT_SIZE, CallPrompts, Image, Reference, describe
from .weights import build_model, choose_device


class DINOR1Inferencer(BaseInferencer):
    """Detect what boxes show, in files, folders, URLs and arrays.

    Prompts come from :meth:`set_prompts` (reference images, a prompt bank or both, encoded once)
    or with each call (boxes on the very images). Of the config only the model and the test
    pipeline are used; none of its data need exist.

    Args:
        model: path or shipped name of a config, or the config.
        weights: path or URL of a checkpoint, read without executing code from it.
        device: 'cpu', 'cuda:0' …; None takes CUDA where there is some.
        point_size: side of the square that a point prompt becomes, as a share of the shorter side
            of its image.
        show_progress: show a progress bar, on a terminal only.
        cfg_options: changes to the config, dotted key to value.

    Attributes:
        prompt_bank: prompts in force, distractors included; before :meth:`set_prompts` those that
            the config's ``model.prompt_bank`` names, or None. ``save_prompt_bank`` writes it.
        classes: names of the classes that are detected, in label order.
        distractors: names of the classes that only compete.

    Raises:
        FileNotFoundError: there is no such config or checkpoint.
        ValueError: the checkpoint cannot be loaded safely, the test pipeline is unknown, or there
            is no such device.
    """

    def __init__(
        self,
        model: str | Path | Config,
        weights: str | Path,
        device: str | None = None,
        point_size: float = POINT_SIZE,
        show_progress: bool = True,
        cfg_options: dict | None = None,
    ) -> None:
        self.point_size = point_size
        self.prompt_bank: PromptBank | None = None
        self._in_force: PromptBank | None = None  # the same, as the model has it
        self.classes: tuple[str, ...] = ()
        self.distractors: tuple[str, ...] = ()
        self._checkpoint = Path(str(weights)).name
        config = load_config(deepcopy(model), cfg_options)
        register_all_modules(init_default_scope=True)
        super().__init__(config, str(weights), choose_device(device), 'mmdet', show_progress)
        self._follow_model()

    def _init_model(self, cfg: Config, weights: str, device: str) -> nn.Module:
        return revert_sync_batchnorm(build_model(cfg, weights)).to(device).eval()

    def _init_pipeline(self, cfg: Config) -> ImageReader:
        return ImageReader(image_pipeline(cfg))

    def _init_collate(self, cfg: Config) -> Callable:
        return pseudo_collate  # the base class looks for another one, and warns

    def _init_visualizer(self, cfg: Config) -> Visualizer:
        # No backends, they would want a folder to log to; and a name of its own, since a runner of
        # this process that asks for the config's name must not be given this one.
        cfg.visualizer = dict(
            cfg.get('visualizer') or {}, name='DINOR1Inferencer', vis_backends=None
        )
        if type_name(cfg.visualizer) in (None, 'DetLocalVisualizer'):
            cfg.visualizer.type = 'LegibleVisualizer'
        return super()._init_visualizer(cfg)

    @property
    def negatives(self) -> tuple[str, ...]:
        """The name of ``distractors`` in 0.6, until 0.8."""
        return self.distractors

    @cached_property
    def _weights_fingerprint(self) -> str:
        return weights_fingerprint(self.model)

    @property
    def made_with(self) -> dict[str, str]:
        """What the provenance of a bank says of the model: config, checkpoint and fingerprint."""
        return dict(
            model=Path(self.cfg.filename or '').stem,
            checkpoint=self._checkpoint,
            weights=self._weights_fingerprint,
        )

    # --- prompts ------------------------------------------------------------------------

    @takes_negatives
    def set_prompts(
        self,
        references: Sequence[Reference] | None = None,
        bank: PromptBank | str | Path | None = None,
        distractors: Sequence[str] = (),
    ) -> PromptBank:
        """Encode or read the prompts for all following calls, in place of earlier ones.

        A class's prompt is the mean over all its boxes, whatever reference they lie in; with a
        joint prompt encoder over its references, each read with all its boxes of the class.

        Args:
            references: images with boxes and class names.
            bank: a prompt bank, or its file; with ``references``, these add classes to it.
            distractors: classes, of either, that compete and are never given out, like the rows of
                the bank that are its negatives. How they compete says
                ``model.test_cfg.negatives``, see :class:`NegativesRule`.

        Returns:
            The prompts in force, also in :attr:`prompt_bank`.

        Raises:
            FileNotFoundError: there is no such bank.
            ValueError: nothing was given, a box or image is unusable (see
                :func:`exemplar_boxes`), a distractor has no prompt, a class is in the bank and in
                the references, or the bank was made by a model of another width, or, where it is
                to be joined, with other weights.
        """
        if isinstance(references, Reference):
            references = [references]
        if isinstance(bank, str | Path):
            bank = load_prompt_bank(bank)
        banks = [] if bank is None else [bank]
        if references:
            given = self.pipeline, references, self.point_size, self.made_with
            banks.append(encode_references(self.model, *given))
        if not banks:
            raise ValueError('set_prompts needs references, a bank or both.')
        joined = banks[0] if len(banks) == 1 else PromptBank.merge(banks)
        names = [name for name in joined.class_names if name not in joined.negatives]
        wanted, distractors = split_distractors(names, distractors)
        if message := joined.other_weights(self._weights_fingerprint):
            print_log(message, logger='current', level=logging.WARNING)
        # labels count the wanted classes first, so that distractors leave no gap in the output
        competing = joined.with_negatives({name: () for name in distractors})
        self._in_force = competing.aligned_to(wanted)
        self.model.set_prompt_bank(self._in_force)
        self.prompt_bank, self.classes, self.distractors = joined, wanted, distractors
        return joined

    def _follow_model(self) -> None:
        """Take over a bank that the config named, or that somebody set on the model itself."""
        bank = self.model.prompt_bank
        if bank is not None and bank is not self._in_force:
            self.set_prompts(bank=bank)

    # --- detection ----------------------------------------------------------------------

    @takes_negatives
    def __call__(
        self,
        inputs: Image | Sequence[Image],
        batch_size: int = 1,
        *,
        boxes: Sequence | None = None,
        classes: Sequence | str | None = None,
        distractors: Sequence[str] = (),
        score_thr: float = 0.3,
        top_k: int | None = None,
        skip_broken: bool = False,
        return_datasamples: bool = False,
        out_dir: str | Path | None = None,
        return_vis: bool = False,
        show: bool = False,
        wait_time: float = 0,
    ) -> dict:
        """Detect, with the prompts that were set or with boxes on the very images.

        Only images of one size are batched, so nothing is padded, and neither ``batch_size`` nor
        the other images change what is found in one, beyond rounding.

        Args:
            inputs: path, URL, folder (not those in it) or (h, w, 3) uint8 BGR array, or a list
                of them.
            batch_size: most images at a time.
            boxes: prompts on the images themselves, instead of those set: (x1, y1, x2, y2) boxes
                or (x, y) points in pixels; for a list of inputs, a list of boxes for each image.
            classes: names of ``boxes``, likewise; a single text for all of them.
            distractors: those of ``classes`` that only compete; see :meth:`set_prompts`.
            score_thr: lowest score of what is given out and drawn.
            top_k: most detections per class and image; None: no limit.
            skip_broken: go on where an image cannot be read, or is too small for the model.
            return_datasamples: ``DetDataSample`` instead of plain values.
            out_dir: folder that gets the drawn images, as ``vis/<name>.jpg``.
            return_vis: return the drawn images.
            show: open each drawn image in a window.
            wait_time: seconds a window stays; 0: until a key is pressed.

        Returns:
            ``predictions``, one per image in their order: a dict of ``image``, ``height``,
            ``width``, ``labels``, ``class_names``, ``scores`` and ``bboxes`` (x1, y1, x2, y2) in
            pixels of the image, best first, or a data sample; None for a broken image.
            ``visualization``: (h, w, 3) RGB arrays likewise, empty without ``return_vis``.
            ``classes``: names in label order. ``best_scores``: highest score of each class in
            all images, below ``score_thr`` or not; 0 for one that has none. ``broken``:
            message by the name of the image.

        Raises:
            RuntimeError: there are no prompts.
            UnreadableImage: and not ``skip_broken``.
            FileNotFoundError: a folder without images.
            ValueError: a box is unusable, or lengths do not agree; negatives with
                ``model.test_cfg.chunk_size``, which compares classes only chunk by chunk; an image
                has fewer feature points than the model queries, and not ``skip_broken``.
        """
        images = list_images(inputs)
        single = not isinstance(inputs, list | tuple)
        prompts = self._prompts_of_call(images, boxes, classes, distractors, single)
        names = picture_names(images)
        predictions: list = [None] * len(images)
        pictures: list = [None] * len(images)
        broken: dict[str, str] = {}
        kept = Kept(len(prompts.wanted), score_thr, top_k)
        may_fail = broken if skip_broken else None
        prepared = self.preprocess(images, prompts, may_fail)
        for image, sample in self.detect_prepared(prepared, batch_size, may_fail):
            sample.pred_instances = kept(sample.pred_instances)
            if out_dir is not None or show or return_vis:
                out_file = out_dir and Path(out_dir) / 'vis' / names[image.index]
                picture = self.visualize(image, sample, prompts.wanted, out_file, show, wait_time)
                pictures[image.index] = picture if return_vis else None
            predictions[image.index] = sample
            if not return_datasamples:
                predictions[image.index] = self.postprocess(image, sample, prompts.wanted)
        return dict(
            predictions=predictions,
            visualization=pictures if return_vis else [],
            classes=prompts.wanted,
            best_scores=dict(zip(prompts.wanted, kept.best.tolist(), strict=True)),
            broken=broken,
        )

    def _prompts_of_call(
        self,
        images: Sequence[Image],
        boxes: Sequence | None,
        classes: Sequence | str | None,
        distractors: Sequence[str],
        single: bool,
    ) -> CallPrompts:
        """Those of the call itself, else those set; see :meth:`__call__` for the errors."""
        self._follow_model()
        if boxes is not None:
            prompts = CallPrompts.drawn(images, boxes, classes, distractors, single)
        elif classes is not None or distractors:
            raise ValueError(
                'classes= and distractors= of a call belong to boxes=; those of reference images '
                'and banks are given to set_prompts.'
            )
        elif self._in_force is None:
            raise RuntimeError(
                'No prompts: call set_prompts(references=[...]) or set_prompts(bank=...) first, '
                'or give boxes= and classes= for these images.'
            )
        else:
            prompts = CallPrompts(self.classes, tuple(self._in_force.negatives))
        self.model.bbox_head.negatives.refuse_chunks(
            self.model.test_cfg.get('chunk_size', 0), len(prompts.names), bool(prompts.distractors)
        )
        return prompts

    def detect_prepared(
        self, prepared: Iterable[PreparedImage], batch_size: int, broken: dict[str, str] | None
    ) -> Iterator[tuple[PreparedImage, DetDataSample]]:
        """Each image with all its detections, as the batches fill.

        Raises:
            ValueError: an image is too small; ``broken``, if any, gets the message instead.
        """
        for batch in same_size_batches(prepared, batch_size):
            try:
                found = self.forward(batch)
            except ValueError as error:  # images of this size are too small
                messages = {image.name: f'{image.name}: {error}' for image in batch}
                if broken is None:
                    raise ValueError(messages[batch[0].name]) from error
                broken |= messages
            else:
                yield from zip(batch, found, strict=True)

    def preprocess(
        self, images: Sequence[Image], prompts: CallPrompts, broken: dict[str, str] | None
    ) -> Iterator[PreparedImage]:
        """Read the images and attach their own prompts; ``broken``, if any, gets what fails."""
        for index, image in enumerate(with_progress(images, self.show_progress)):
            try:
                prepared = self.pipeline(image, index)
            except UnreadableImage as error:
                if broken is None:
                    raise
                broken[describe(image, f'array {index}')] = str(error)
                continue
            if prompts.own is not None:
                prepared.attach(*prompts.own[index], prompts.names, self.point_size)
                negatives = dict(negative_labels=prompts.negative_labels)
                prepared.data['data_samples'].set_metainfo(negatives)
            yield prepared

    @torch.no_grad()
    def forward(self, batch: Sequence[PreparedImage]) -> list[DetDataSample]:
        """Detections of images of one size, on the CPU."""
        return fetch(self.model.test_step(self.collate_fn([image.data for image in batch])))

    def visualize(
        self,
        image: PreparedImage,
        sample: DetDataSample,
        class_names: Sequence[str],
        out_file: str | Path | None = None,
        show: bool = False,
        wait_time: float = 0,
    ) -> np.ndarray:
        """Draw all detections of an image, (h, w, 3) uint8 RGB; see :meth:`__call__`."""
        colours = spread_colours(len(class_names))
        self.visualizer.dataset_meta = dict(classes=class_names, palette=colours)
        with warnings.catch_warnings():
            # said of boxes that touch the border
            warnings.filterwarnings('ignore', message='.* is out of bounds')
            self.visualizer.add_datasample(
                image.name,
                np.asarray(image.pixels)[..., ::-1].astype(np.uint8),
                sample,
                draw_gt=False,
                show=show,
                wait_time=wait_time,
                pred_score_thr=-1.0,  # what remains is drawn
                out_file=out_file and str(out_file),
            )
        return self.visualizer.get_image()

    def postprocess(
        self, image: PreparedImage, sample: DetDataSample, class_names: Sequence[str]
    ) -> dict:
        """The detections of an image as plain values, for JSON."""
        found, (height, width) = sample.pred_instances, image.size
        labels = found.labels.tolist()
        return dict(
            image=image.name,
            height=height,
            width=width,
            labels=labels,
            class_names=[class_names[label] for label in labels],
            scores=found.scores.tolist(),
            bboxes=found.bboxes.tolist(),
        )
