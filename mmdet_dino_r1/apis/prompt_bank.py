"""Build a prompt bank from a config, a checkpoint and annotated images."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dist import is_main_process

from ..config.loading import image_pipeline, load_config
from ..config.tested_sets import exemplar_source
from ..engine.bank_builder import encode_prompt_bank
from ..structures import PromptBank, save_prompt_bank
from .weights import load_weights


def build_prompt_bank(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    ann: str | Path | None = None,
    img: str | Path | None = None,
    shots: int = 16,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    keep_exemplars: bool = True,
    skip_missing: bool = False,
    device: str | None = None,
    progress: bool = True,
    cfg_options: dict | None = None,
) -> PromptBank:
    """Encode at most ``shots`` exemplars per class, and average them (protocol Visual-G).

    Only the images that carry a chosen exemplar are read. Several processes (mmengine's
    ``init_dist``) share the work and get the same bank. How exemplars are chosen is told in
    ``datasets/exemplar_selection.py``.

    Args:
        config: path or shipped name of the model's config, or the config itself. Its test
            pipeline prepares the images.
        checkpoint: weights, read without executing code from the file.
        out: file to write, ``*.safetensors`` by custom; None writes nothing.
        ann: COCO- or LVIS-format annotation file; None takes the split that the config names
            for its prompts, else its training set.
        img: folder of the images of ``ann``.
        shots: most exemplars per class (N).
        seed: another seed chooses other exemplars.
        classes: names wanted, in this order; None takes every category with a box.
        batch_size: images at a time; None takes the test loader's.
        num_workers: processes that read images; None takes the test loader's.
        keep_exemplars: keep each exemplar's embedding, which ``inspect_prompt_bank`` needs.
        skip_missing: leave out classes without a box instead of failing.
        device: 'cpu', 'cuda:0' …; None takes CUDA where there is some.
        progress: show a progress bar.
        cfg_options: changes to the config, dotted key to value.

    Returns:
        The bank, on the CPU.

    Raises:
        FileNotFoundError: config, checkpoint, annotation file or images are missing.
        ValueError: the annotation file is not COCO JSON, a class has no exemplar, or the
            checkpoint cannot be loaded safely.
    """
    cfg = load_config(config, cfg_options)
    register_all_modules(init_default_scope=True)
    exemplars = DATASETS.build(
        dict(
            type='ExemplarDataset',
            shots=shots,
            seed=seed,
            classes=None if classes is None else list(classes),
            skip_missing=skip_missing,
            pipeline=image_pipeline(cfg),
            **_split(cfg, ann, img),
        )
    )
    exemplars.check_images()  # before the model is built
    if not Path(checkpoint).is_file() and '://' not in str(checkpoint):
        raise FileNotFoundError(f'There is no checkpoint {checkpoint}.')
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    model = MODELS.build(deepcopy(cfg.model))  # mmdet's detectors write into their config
    load_weights(model, checkpoint)
    loader = cfg.test_dataloader
    bank = encode_prompt_bank(
        model.to(device),
        exemplars,
        batch_size=batch_size or loader.batch_size,
        num_workers=loader.num_workers if num_workers is None else num_workers,
        keep_exemplars=keep_exemplars,
        progress=progress,
        provenance=dict(model=Path(cfg.filename or '').stem, checkpoint=Path(checkpoint).name),
    )
    if out is not None and is_main_process():
        save_prompt_bank(bank, out)
    return bank


def _split(cfg: Config, ann: str | Path | None, img: str | Path | None) -> dict:
    """Annotation file and image folder, as arguments of ``ExemplarDataset``."""
    if ann is not None:
        return dict(ann_file=str(ann), data_prefix=dict(img=str(img or '')))
    if img is not None:
        raise ValueError('img= names the folder of the images of ann=; give both, or neither.')
    hook = (cfg.get('default_hooks') or {}).get('prompt_bank') or {}
    bank = hook.get('bank')
    split = exemplar_source(bank if isinstance(bank, dict) else {}, cfg)
    return {key: value for key, value in split.items() if key != 'match'}
