"""Detection in files beside the model alone: does the device wait for images?"""

from __future__ import annotations

import shutil
import time
from copy import deepcopy
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from ...apis import DINOR1Inferencer
from ...apis.detection_parts import PartFolder
from ...apis.detection_run import DetectionRun, what_is_asked
from ...apis.image_list import ImageList
from ...structures import PromptBank

_FILES = 40  # different ones
_WORKERS = 2


def streaming_figures(
    cfg: Config, images: int, batch_size: int, rounds: int, device: torch.device
) -> dict[str, float]:
    """Images/s of ``detect`` and of the model alone, in turns; medians, and of their ratios, too.

    Alone it gets the same images from memory, prepared. ``detect`` begins its readers, reads JPEGs
    of 640 x 480 and writes its results; its model has random weights and 10 random prompts.
    """
    with TemporaryDirectory() as folder:
        inferencer = _inferencer(cfg, Path(folder), device)
        files = _draw(Path(folder, 'images'))
        paths = [str(files[index % _FILES]) for index in range(images)]
        listed = ImageList(paths, paths, list(range(images)))
        prepared = [inferencer.pipeline(path, index) for index, path in enumerate(paths)]
        _detect(inferencer, prepared[:batch_size], batch_size)  # a first time, which is slower
        rows = []
        for _ in range(rounds):
            alone = images / _detect(inferencer, prepared, batch_size)
            out = Path(folder, 'out')
            asked = what_is_asked(inferencer, listed, []) | dict(part_size=100)
            run = DetectionRun(
                inferencer, listed, PartFolder(out, asked), batch_size, workers=_WORKERS
            )
            run.folder.begin()
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            shutil.rmtree(out)
            streamed, waiting = images / seconds, run.seconds_waited / seconds
            rows.append((alone, streamed, streamed / alone, waiting))
    names = ('model alone, images/s', 'detect, images/s', 'ratio', 'share of time waiting')
    return dict(zip(names, map(median, zip(*rows, strict=True)), strict=True))


def _inferencer(cfg: Config, folder: Path, device: torch.device) -> DINOR1Inferencer:
    torch.manual_seed(0)
    weights = folder / 'weights.pth'
    model = MODELS.build(deepcopy(cfg.model))  # mmdet's detectors write into their config
    torch.save(dict(state_dict=model.state_dict(), meta={}), weights)
    inferencer = DINOR1Inferencer(cfg, weights, str(device), show_progress=False)
    width = inferencer.model.embed_dims
    names = tuple(f'class {index}' for index in range(10))
    inferencer.set_prompts(bank=PromptBank(names, torch.randn(len(names), width)))
    return inferencer


def _draw(folder: Path) -> list[Path]:
    """Pictures with about the detail of photographs."""
    folder.mkdir()
    random, paths = np.random.default_rng(0), []
    for index in range(_FILES):
        coarse = random.integers(0, 256, (60, 80, 3), np.uint8)
        paths.append(folder / f'{index}.jpg')
        cv2.imwrite(str(paths[-1]), cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))
    return paths


def _detect(inferencer: DINOR1Inferencer, prepared: list, batch_size: int) -> float:
    """Seconds of the model for prepared images; results come to the CPU, so it has ended then."""
    start = time.perf_counter()
    for _ in inferencer.detect_prepared(prepared, batch_size, None):
        pass
    return time.perf_counter() - start
