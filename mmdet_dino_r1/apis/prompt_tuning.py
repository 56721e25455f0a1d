"""Tune a prompt bank on annotated images; the detector stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import nn

from ..config.exemplars import exemplar_config
from ..config.loading import load_config
from ..engine.bank_builder import weights_fingerprint
from ..engine.prompt_tuning import tune_bank
from ..structures import PromptBank, load_prompt_bank, save_prompt_bank
from ..utils.near_names import quote_with_near, some
from .prompt_bank import asked_split, model_and_origin
from .reference_bank import ReferenceDataset
from .reference_prompts import Reference

if TYPE_CHECKING:
    from .inferencer import DINOR1Inferencer

# A name as like one of the bank's is said to be perhaps the same.
_ALIKE = 0.8


def tune_prompt_bank(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    ann: str | Path | None = None,
    img: str | Path | None = None,
    bank: PromptBank | str | Path | None = None,
    shots: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    cfg_options: dict | None = None,
    **options,
) -> PromptBank:
    """Tune the prompts of the classes of annotated images, started from their exemplars' means.

    The rows of a bank are all that learns, see :func:`tune_bank`. A box that is not annotated
    counts as background, so all boxes of the classes should be. Several processes (mmengine's
    ``init_dist``) share the work and get the same bank.

    Args:
        config: path or shipped name of the model's config, or the config itself. Its test
            pipeline prepares the images.
        checkpoint: weights, read without executing code from the file.
        out: file to write, ``*.safetensors`` by custom; None writes nothing.
        ann: COCO- or LVIS-format annotation file; None: the split that the config's
            ``PromptBankHook`` names.
        img: folder of the images of ``ann``.
        bank: a bank to begin with, or its file. Its rows of the classes tuned go on learning, its
            other rows stay as they are and compete.
        shots: tune on the images of so many exemplars per class, chosen as for a bank; None: on
            all images of the file, those without a box as background.
        seed: another seed chooses other exemplars, folds and batches.
        classes: names wanted, in this order; None takes every category with a box.
        device: 'cpu', 'cuda:0' …; None takes CUDA where there is some.
        progress: called with the steps done and all steps; may raise to stop.
        cfg_options: changes to the config, dotted key to value.
        **options: further ones of :func:`tune_bank`, such as ``steps`` and ``lr``.

    Returns:
        The bank, on the CPU: the classes of ``bank``, then those that it lacks.

    Raises:
        FileNotFoundError: config, checkpoint, bank, annotation file or images are missing.
        ValueError: there is no annotation file, it is not COCO JSON, a class has no exemplar,
            ``bank`` was made with other weights, the checkpoint cannot be loaded safely, or
            there is no such device.
    """
    cfg = load_config(config, cfg_options)
    register_all_modules(init_default_scope=True)
    asked = asked_split(cfg, ann, img)
    if 'ann_file' not in asked or 'support' in asked:
        raise ValueError(
            'Tuning needs ann= and img= (--ann and --img): images with all boxes of their classes. '
            "The config's PromptBankHook names no such annotation file."
        )
    split = exemplar_config(asked, cfg, classes=classes)
    exemplars = DATASETS.build(dict(split, type='TuningDataset', shots=shots, seed=seed))
    exemplars.check_images()  # before the model is built
    start = load_prompt_bank(bank) if isinstance(bank, str | Path) else bank
    model, made_with = model_and_origin(cfg, checkpoint, device)
    made_with['weights'] = weights_fingerprint(model)
    _check_start(start, made_with['weights'], model, exemplars.metainfo['classes'])
    tuned = tune_bank(
        model, exemplars, start, seed=seed, provenance=made_with, progress=progress, **options
    )
    if out is not None and is_main_process():
        save_prompt_bank(tuned, out)
    return tuned


def tune_references(
    inferencer: DINOR1Inferencer,
    references: Sequence[Reference],
    bank: PromptBank | str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options,
) -> PromptBank:
    """Tune prompts on images with boxes in memory; see :func:`tune_prompt_bank`.

    Whatever is not in a box of a reference counts as background, so give all boxes of an image
    in one reference. The prompts of the ``inferencer`` stay as they are; its ``set_prompts`` takes
    the result as ``bank``.

    Raises:
        TypeError: a reference is none.
        ValueError: there is none, one has a point, which says nothing of an object's size, a box
            or image is unusable, or ``bank`` was made with other weights.
    """
    if not references:
        raise ValueError('Tuning needs references: images with boxes of what is to be found.')
    model = inferencer.model
    joint, point_size = model.prompt_encoder.joint, inferencer.point_size
    exemplars = ReferenceDataset(inferencer.pipeline, references, point_size, joint)
    if points := [shape for ref in references for shape in ref.boxes if len(shape) == 2]:
        raise ValueError(f'Tuning needs boxes; draw one instead of the point {tuple(points[0])}.')
    start = load_prompt_bank(bank) if isinstance(bank, str | Path) else bank
    made_with = inferencer.made_with
    _check_start(start, made_with['weights'], model, exemplars.metainfo['classes'])
    return tune_bank(model, exemplars, start, provenance=made_with, progress=progress, **options)


def _check_start(
    start: PromptBank | None, weights: str, model: nn.Module, classes: Sequence[str]
) -> None:
    """Refuse a bank of other weights; say which classes are in it, for a typo makes a new one."""
    if start is None:
        return
    if message := start.other_weights(weights):
        raise ValueError(message)
    new = [name for name in classes if name not in set(start.class_names)]
    said = f'{len(classes) - len(new)} of {len(classes)} classes are in the bank to begin with'
    if new:
        hints = [quote_with_near(name, start.class_names, n=1, cutoff=_ALIKE) for name in new]
        said += f', {len(new)} are new to it: {some(hints)}'
        if model.fusion:
            said += '. With model.fusion=True a new class changes the scores of the others'
    print_log(f'{said}.', logger='current')
