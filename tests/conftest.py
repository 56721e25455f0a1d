"""Builders shared by the tests: tiny models, batches and data; CPU, no downloads."""

from __future__ import annotations

import socket
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import mmdet
import mmengine.config.config
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

# Here, where pytest has no workers yet: the first import on a machine caches a grammar in a file
# that another process may read half of (yapf 0.43: `Grammar.dump` renames it before it is flushed),
# and a worker whose import failed once cannot import yapf again.
from yapf.yapflib import yapf_api

import mmdet_dino_r1  # noqa: F401  registers everything
from mmdet_dino_r1.testing import ShapesConfig, generate_shapes

# tiny models gain nothing from threads, and two busy processes lose a hundredfold by them
torch.set_num_threads(1)

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
TINY_SHAPES = dict(
    image_size=64,
    num_base_classes=4,
    num_novel_classes=2,
    train_images=12,
    val_images=4,
    val_novel_images=4,
    prompts_novel_images=6,
)


@pytest.fixture(autouse=True)
def mmdet_scope():
    """What a runner sets up: mmdet's registries, and a known seed."""
    init_default_scope('mmdet')
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def unformatted_configs(monkeypatch):
    """Spare the seconds that yapf takes to format each config, four times a run."""
    for module in (yapf_api, mmengine.config.config):
        monkeypatch.setattr(module, 'FormatCode', lambda text, **_: (text, True), raising=False)


@pytest.fixture(scope='session')
def tiny_shapes(tmp_path_factory) -> Path:
    """A shapes set of a few 64-pixel images, made once."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    generate_shapes(root, ShapesConfig(**TINY_SHAPES))
    return root


def find_free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def run_two_ranks(script: str, folder: Path) -> None:
    """Run a test file as two processes at once, ``python SCRIPT RANK PORT FOLDER``.

    Plain processes: functions of a test file cannot be sent to children under pytest's importlib
    mode.

    Args:
        script: ``__file__`` of the test.
        folder: where the ranks work and leave their results.
    """
    port = find_free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(port), str(folder)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        for process in ranks:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output[-3000:]
    finally:
        for process in ranks:
            process.kill()


def tiny_model_cfg(grqo: dict | None = None, **model) -> Config:
    """The small model's config made tiny: one encoder layer, ten queries.

    Args:
        grqo: arguments of ``GRQOLoss``; None for VIS-GDINO.
        **model: merged over the model.
    """
    cfg = Config.fromfile(CONFIGS / '_base_/models/vis_gdino_r18_small_model.py')
    cfg.merge_from_dict(
        dict(
            model=dict(
                num_queries=10,
                backbone=dict(base_channels=8, norm_cfg=dict(num_groups=4)),
                neck=dict(in_channels=[16, 32, 64]),
                prompt_encoder=dict(feedforward_channels=64),
                encoder=dict(
                    num_layers=1,
                    layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64)),
                    text_layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64)),
                    # a fusion that is felt, rather than the 1e-4 of the first step
                    fusion_layer_cfg=dict(embed_dim=64, init_values=0.5),
                ),
                decoder=dict(layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64))),
                dn_cfg=dict(group_cfg=dict(num_dn_queries=8)),
                test_cfg=dict(max_per_img=20, nms=None),
            )
        )
    )
    if grqo is not None:
        cfg.model.bbox_head.loss_grqo = dict(type='GRQOLoss', **grqo)
    cfg.merge_from_dict(dict(model=deepcopy(model)))  # `_delete_` is taken out of what is given
    return cfg.model


def mm_grounding_dino_cfg(size: str) -> Config:
    """Model config of mmdet's own Grounding DINO, Swin-T, -B or -L, without a language model.

    mmdet 3.3.0 ships T alone; what B and L change is written out here for both families.
    """
    folder = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'mm_grounding_dino'
    model = Config.fromfile(folder / 'grounding_dino_swin-t_pretrain_obj365.py').model
    model.encoder.num_cp = 0  # asks for fairscale and adds no parameter
    if size == 't':
        return model
    large = size == 'l'
    model.backbone.update(
        pretrain_img_size=384,
        embed_dims=192 if large else 128,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48] if large else [4, 8, 16, 32],
        window_size=12,
    )
    model.neck.in_channels = [192, 384, 768, 1536] if large else [256, 512, 1024]
    if large:  # five levels
        model.num_feature_levels = model.neck.num_outs = 5
        model.backbone.out_indices = (0, 1, 2, 3)
        model.encoder.layer_cfg.self_attn_cfg.num_levels = 5
        model.decoder.layer_cfg.cross_attn_cfg.num_levels = 5
    return model


def build_tiny(grqo: dict | None = None, **model):
    """A tiny ``DINOR1`` with random weights, the same for the same torch seed."""
    detector = MODELS.build(tiny_model_cfg(grqo, **model))
    detector.init_weights()
    # zero box offsets and sampling weights would hide mistakes
    generator = torch.Generator().manual_seed(1)
    for name, parameter in detector.named_parameters():
        if 'reg_branches' in name or 'attention_weights' in name:
            parameter.data.normal_(0, 0.1, generator=generator)
    return detector


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    """The model, with the fusion's dropout off: it has no other."""
    for module in model.modules():
        if isinstance(getattr(module, 'dropout', None), float):
            module.dropout = 0.0
    return model


def make_batch(boxes_and_labels: list[tuple[list, list]], size: int = 64, seed: int = 0):
    """Random images with given ground truth, as the data preprocessor leaves them.

    Args:
        boxes_and_labels: per image (x1, y1, x2, y2) boxes in pixels, and labels.
        size: height and width.
        seed: of the pixels; image i depends on seed and i alone.

    Returns:
        (bs, 3, size, size) images and data samples.
    """
    images, samples = [], []
    for index, (boxes, labels) in enumerate(boxes_and_labels):
        generator = torch.Generator().manual_seed(1000 * seed + index)
        images.append(torch.randn(3, size, size, generator=generator))
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(size, size),
                ori_shape=(size, size),
                batch_input_shape=(size, size),
                pad_shape=(size, size),
                scale_factor=(1.0, 1.0),
                img_id=index,
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long),
        )
        samples.append(sample)
    return torch.stack(images), samples


def head_inputs(model: torch.nn.Module, images: torch.Tensor, samples: list) -> dict:
    """A training forward up to the head: what the head's loss receives."""
    torch.manual_seed(5)
    captured = {}
    head_loss = model.bbox_head.loss
    model.bbox_head.loss = lambda **kwargs: captured.update(kwargs) or {}
    model.loss(images, samples)
    model.bbox_head.loss = head_loss
    return captured


TWO_IMAGES = [
    ([[4, 4, 24, 30], [30, 20, 60, 50], [10, 36, 26, 60]], [2, 5, 2]),
    ([[8, 8, 40, 40]], [7]),
]


def with_prompts(samples, prompts: list[tuple[list, list]]):
    """Copies of data samples that carry their own exemplars."""
    samples = deepcopy(samples)
    for sample, (boxes, labels) in zip(samples, prompts, strict=True):
        sample.prompt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long),
        )
    return samples
