"""The detector with one prompt bank baked in, as an ONNX file.

Shapes: batch, H, W (fixed at export), n (detections). The graph itself is in ``export_graph.py``.
"""

from __future__ import annotations

import importlib
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn

from ..config.loading import load_config
from ..engine.bank_builder import weights_fingerprint
from ..models.detectors import DINOR1
from ..structures import PromptBank, load_prompt_bank
from ..utils.atomic_write import atomic_path
from ..utils.compat import torch_version
from ..version import __version__
from .export_graph import PromptedDetector, exportable_copy, plain_copy
from .weights import build_model

MIN_TORCH = (2, 6)  # its exporter by dynamo; tried with 2.13
OPSET = 18  # what PyTorch's exporter writes without converting; onnxruntime >= 1.14
METADATA_KEY = 'mmdet_dino_r1'


def export_onnx(
    model: DINOR1 | str | Path | Config,
    bank: PromptBank | str | Path,
    out: str | Path,
    image_size: tuple[int, int],
    *,
    checkpoint: str | Path | None = None,
    num_detections: int | None = None,
    opset: int = OPSET,
    cfg_options: dict | None = None,
) -> dict:
    """Write the detector for the classes of one bank, in float32, to a single file.

    Input ``images``: (batch, 3, H, W) uint8 **RGB**, as Pillow reads them, of exactly
    ``image_size``; channel order and normalisation are in the graph. The batch may be of any size.

    Outputs, best first: ``boxes`` (batch, n, 4) float (x1, y1, x2, y2) in pixels of the input,
    clipped to it; ``scores`` (batch, n) float in (0, 1); ``labels`` (batch, n) int64, row of
    ``class_names``. ``n`` is fixed: low scores are there, too.

    Metadata under ``mmdet_dino_r1``, in JSON: ``class_names``, ``image_size``, ``weights``
    (fingerprint), ``bank`` (its provenance), ``package_version``.

    Args:
        model: the detector, which stays as it is; or path or shipped name of its config, or the
            config, together with ``checkpoint``.
        bank: prompts, or the file of a bank.
        out: file to write; its folder is made.
        image_size: (H, W) in pixels.
        checkpoint: weights for ``model`` where that is a config.
        num_detections: n; None takes ``test_cfg.max_per_img``. Never more than there are pairs of
            query and class.
        opset: version of ONNX's operators, at least 18.
        cfg_options: changes to the config, dotted key to value.

    Returns:
        The metadata.

    Raises:
        ImportError: onnx or onnxscript is not installed, or PyTorch is older than 2.6.
        FileNotFoundError: config, checkpoint or bank is missing.
        ValueError: the size, the bank's width or a setting of the model cannot be exported.

    Warns:
        UserWarning: the bank was made with other weights.
    """
    _need('onnx', 'onnxscript')
    if torch_version() < MIN_TORCH:
        needed = '.'.join(map(str, MIN_TORCH))
        raise ImportError(f'ONNX export needs torch >= {needed}, found {torch.__version__}.')
    if not isinstance(bank, PromptBank):
        bank = load_prompt_bank(bank)
    image_size = tuple(image_size)  # type: ignore[assignment]  # of two: _check sees to it
    model = load_detector(model, checkpoint, cfg_options)
    _check(model, bank, image_size, opset)
    weights = weights_fingerprint(model)
    if 'weights' in bank.provenance and (message := bank.other_weights(weights)):
        warnings.warn(message, stacklevel=2)
    metadata = dict(
        class_names=list(bank.class_names),
        image_size=list(image_size),
        weights=weights,
        bank=bank.provenance,
        package_version=__version__,
    )
    detector = PromptedDetector(exportable_copy(model), bank, image_size, num_detections)
    images = torch.zeros(2, 3, *image_size, dtype=torch.uint8)  # one would be taken for fixed
    with torch.no_grad():
        # by itself the exporter to ONNX would fix the batch size where it cannot leave it open
        exported = torch.export.export(
            detector, (images,), dynamic_shapes=({0: torch.export.Dim('batch')},), strict=False
        )
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=opset,
            input_names=['images'],
            output_names=['boxes', 'scores', 'labels'],
            dynamic_shapes=({0: 'batch'},),  # names it
            verbose=False,
        )
    assert program is not None  # with dynamo=True there is one
    program.model.metadata_props[METADATA_KEY] = json.dumps(metadata, ensure_ascii=False)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as unfinished:
        program.save(unfinished, external_data=False)
    return metadata


class Differences(NamedTuple):
    """At worst, in pixels over (x1, y1, x2, y2), inf where a detection has no counterpart."""

    boxes: float
    scores: float


def check_onnx(
    path: str | Path,
    model: DINOR1,
    bank: PromptBank,
    images: np.ndarray,
    tolerance: float = 1e-4,
) -> Differences:
    """Compare the file under onnxruntime on the CPU with ``model.predict``.

    Detections are paired by label and score, since the order of equal scores is open.

    Args:
        path: what :func:`export_onnx` wrote.
        model: what it was written from, with the same ``test_cfg``.
        bank: the prompts it was written with.
        images: (batch, 3, H, W) uint8 RGB.
        tolerance: greatest difference of a score, and of a box as a share of the longer side of
            the image.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: the two differ by more, or were not made for each other.
    """
    _need('onnxruntime')
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    written = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    for what, of_file, given in (
        ('weights', written['weights'], weights_fingerprint(model)),
        ('classes', written['class_names'], list(bank.class_names)),
        ('image size (H, W)', written['image_size'], list(images.shape[2:])),
    ):
        if of_file != given:
            raise ValueError(f'{path} was written for other {what}: {of_file}, got {given}.')
    expected = _predict(model, bank, images)
    outputs = session.run(None, dict(images=images))
    each = [_compare(found, right) for *found, right in zip(*outputs, expected, strict=True)]
    boxes, scores = np.max(each, axis=0).tolist()
    if not (scores <= tolerance and boxes <= tolerance * max(images.shape[2:])):
        raise ValueError(
            f'{path} differs from the model: boxes by {boxes:.2g} pixels, scores by {scores:.2g}. '
            'Points of the image that rank alike to the last digits may be selected in another '
            'order, with some effect on all boxes; should another image agree, that was it.'
        )
    return Differences(boxes, scores)


def load_detector(
    model: DINOR1 | str | Path | Config,
    checkpoint: str | Path | None = None,
    cfg_options: dict | None = None,
) -> DINOR1:
    """A ``DINOR1`` in eval mode on the CPU, from config and checkpoint; or itself, as it is.

    Raises:
        ValueError: a config without a checkpoint or of another model, or a model together with
            what belongs to a config.
    """
    if isinstance(model, nn.Module):
        if checkpoint is not None or cfg_options:
            raise ValueError('checkpoint and cfg_options belong to a config, not to a model.')
        return model
    if checkpoint is None:
        raise ValueError('A config needs checkpoint=FILE, too.')
    cfg = load_config(model, cfg_options)
    register_all_modules(init_default_scope=True)
    detector = build_model(cfg, checkpoint)
    if not isinstance(detector, DINOR1):
        raise ValueError(f'The config describes a {type(detector).__name__}, not a DINOR1.')
    return detector.eval()


def _need(*packages: str) -> None:
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f'{package} is not installed; ONNX export needs the extra "onnx": '
                'pip install "mmdet_dino_r1[onnx]", or pip install onnx onnxscript onnxruntime'
            ) from error


def _check(model: DINOR1, bank: PromptBank, image_size: tuple[int, int], opset: int) -> None:
    """Refuse what the graph would do differently from the model."""
    if bank.dim != model.embed_dims:
        raise ValueError(
            f'The prompt bank has width {bank.dim}, the model needs {model.embed_dims}; '
            'rebuild the bank with this model.'
        )
    if model.bbox_head.test_cfg.get('nms'):
        raise ValueError(
            'test_cfg.nms has no place in the graph, whose outputs have a fixed size. Export with '
            'test_cfg.nms=None (--cfg-options model.test_cfg.nms=None) and suppress afterwards.'
        )
    if bank.negatives or model.bbox_head.negatives.nearest:
        raise ValueError(
            'Negatives have no place in the graph: export without model.test_cfg.negatives.nearest '
            'and with a bank that has no rows that are negatives.'
        )
    if opset < OPSET:
        raise ValueError(f'opset {opset} is too old; at least {OPSET}.')
    divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)
    if min(image_size) < 1 or any(side % divisor for side in image_size):
        raise ValueError(
            f'image_size (H, W) = {tuple(image_size)} must be positive multiples of '
            f'data_preprocessor.pad_size_divisor={divisor}: the graph does not pad.'
        )


@torch.no_grad()
def _predict(model: DINOR1, bank: PromptBank, images: np.ndarray) -> list:
    """``model.predict`` on the images as its data preprocessor gets them, in BGR."""
    model = plain_copy(model)
    model.prompt_banks = {None: replace(bank, labels=None)}  # labels are rows in the file, too
    meta = dict(img_shape=images.shape[2:], scale_factor=(1.0, 1.0))
    data = dict(
        inputs=[torch.from_numpy(image[::-1].copy()) for image in images],
        data_samples=[DetDataSample(metainfo=meta) for _ in images],
    )
    data = model.data_preprocessor(data, False)
    samples = model.predict(data['inputs'], data['data_samples'], rescale=False)
    return [sample.pred_instances.numpy() for sample in samples]


def _compare(found: list[np.ndarray], reference) -> Differences:
    """One image's boxes (n, 4), scores and labels with ``InstanceData`` of the same."""
    length = min(len(found[1]), len(reference))
    boxes, scores, labels = (part[:length] for part in found)
    by_box = np.abs(boxes[:, None] - reference.bboxes[None]).max(-1)  # (found, reference)
    by_score = np.abs(scores[:, None] - reference.scores[None])
    other = labels[:, None] != reference.labels[None]
    # the nearest box among those of the same class and, but for rounding, the same score
    pair = np.where(other | (by_score > 1e-3), np.inf, by_box)
    in_order = np.abs(scores - reference.scores[:length])
    return Differences(float(pair.min(1).max()), float(in_order.max()))
