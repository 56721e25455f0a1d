"""Build a prompt bank from a config, a checkpoint and annotated images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dist import is_main_process
from torch import nn

from ..config.exemplars import exemplar_config, hook_bank
from ..config.loading import load_config
from ..config.tested_sets import SPLIT_KEYS
from ..engine.bank_builder import encode_prompt_bank
from ..structures import PromptBank, save_prompt_bank
from .weights import build_model, choose_device


def build_prompt_bank(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    ann: str | Path | None = None,
    img: str | Path | None = None,
    support: str | Path | None = None,
    shots: int | None = None,
    seed: int | None = None,
    classes: Sequence[str] | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    keep_exemplars: bool | None = None,
    skip_missing: bool | None = None,
    device: str | None = None,
    progress: bool = True,
    cfg_options: dict | None = None,
) -> PromptBank:
    """Encode at most ``shots`` exemplars per class, and average them (protocol Visual-G).

    What is None is as the config's ``PromptBankHook`` says, so that a bank without further
    arguments has the exemplars of a test. Only the images that carry a chosen exemplar are read.
    Several processes (mmengine's ``init_dist``) share the work and get the same bank. How
    exemplars are chosen is told in ``datasets/exemplar_selection.py``.

    Args:
        config: path or shipped name of the model's config, or the config itself. Its test
            pipeline prepares the images.
        checkpoint: weights, read without executing code from the file.
        out: file to write, ``*.safetensors`` by custom; None writes nothing.
        ann: COCO- or LVIS-format annotation file, whose categories are matched by name; None: the
            hook's split, else the training set.
        img: folder of the images of ``ann`` or ``support``.
        support: published list of exemplars (``datasets/support_list.py``), of which all are taken;
            without ``img`` its images are where those of the hook's split are.
        shots: most exemplars per class (N); else 16.
        seed: another seed chooses other exemplars; else 0.
        classes: names wanted, in this order; None takes every category with a box.
        batch_size: images at a time; else the test loader's.
        num_workers: processes that read images; None takes the test loader's.
        keep_exemplars: keep each exemplar's embedding, which ``inspect_prompt_bank`` needs; else
            True.
        skip_missing: leave out classes without a box instead of failing; else False.
        device: 'cpu', 'cuda:0' …; None takes CUDA where there is some.
        progress: show a progress bar.
        cfg_options: changes to the config, dotted key to value.

    Returns:
        The bank, on the CPU.

    Raises:
        FileNotFoundError: config, checkpoint, annotation file or images are missing.
        ValueError: the annotation file is not COCO JSON, a class has no exemplar, the checkpoint
            cannot be loaded safely, or there is no such device.
    """
    cfg = load_config(config, cfg_options)
    register_all_modules(init_default_scope=True)
    if support is not None and (ann, shots, seed) != (None, None, None):
        raise ValueError('support= is a list to take as it is: leave out ann=, shots= and seed=.')
    asked = asked_split(cfg, ann, img, support)
    given = dict(shots=shots, seed=seed, skip_missing=skip_missing, batch_size=batch_size)
    given['keep_exemplars'] = keep_exemplars
    asked |= {key: value for key, value in given.items() if value is not None}
    exemplars = DATASETS.build(exemplar_config(asked, cfg, classes=classes))
    exemplars.check_images()  # before the model is built
    model, made_with = model_and_origin(cfg, checkpoint, device)
    loader = cfg.test_dataloader
    bank = encode_prompt_bank(
        model,
        exemplars,
        batch_size=asked.get('batch_size') or loader.batch_size,
        num_workers=loader.num_workers if num_workers is None else num_workers,
        keep_exemplars=asked.get('keep_exemplars', True),
        progress=progress,
        provenance=made_with,
    )
    if out is not None and is_main_process():
        save_prompt_bank(bank, out)
    return bank


def asked_split(
    cfg: Config,
    ann: str | Path | None,
    img: str | Path | None,
    support: str | Path | None = None,
) -> dict:
    """``bank`` of the config's ``PromptBankHook`` with the files given in place of its own.

    Raises:
        ValueError: an image folder alone.
    """
    asked = hook_bank(cfg)
    if ann is not None or (support is not None and img is not None):
        asked = {key: value for key, value in asked.items() if key not in SPLIT_KEYS}
        asked['data_prefix'] = dict(img=str(img or ''))
    elif img is not None:
        raise ValueError(
            'img= names the folder of the images of ann= or support=; give one of these as well.'
        )
    files = dict(ann_file=ann, support=support)
    return asked | {key: str(file) for key, file in files.items() if file is not None}


def model_and_origin(
    cfg: Config, checkpoint: str | Path, device: str | None
) -> tuple[nn.Module, dict]:
    """The model on a device that works, and what a bank's provenance says of it.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it cannot be loaded safely, or there is no such device.
    """
    if not Path(checkpoint).is_file() and '://' not in str(checkpoint):
        raise FileNotFoundError(f'There is no checkpoint {checkpoint}.')
    model = build_model(cfg, checkpoint).to(choose_device(device))
    return model, dict(model=Path(cfg.filename or '').stem, checkpoint=Path(checkpoint).name)
