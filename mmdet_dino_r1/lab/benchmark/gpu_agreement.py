"""Does a tiny model say the same on a device as on the CPU, and train there in half precision?"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from ...config.loading import load_config
from .contenders import DINO_R1, Contender, build_contender, quiet
from .workload import Workload

# of the largest value; gradients jump where a rounding takes an activation across zero
BOUNDS = dict(outputs=1e-4, losses=1e-4, gradients=1e-2)
HALF_BOUND = 0.1  # of a first loss in half precision, relative to that in float32
# one box of each class, so nothing is left to chance but what the config below switches off
WORKLOAD = Workload(height=64, width=96, batch_size=2, classes=6, boxes=3)
# dropout and the noise of denoising queries come of the device's own random numbers
_WITHOUT_CHANCE = {
    'model.encoder.fusion_layer_cfg.dropout': 0.0,
    'model.encoder.fusion_layer_cfg.drop_path': 0.0,
    'model.dn_cfg.label_noise_scale': 0.0,
    'model.dn_cfg.box_noise_scale': 1e-9,  # mmdet refuses 0
}

Said = dict[str, dict[str, Tensor]]  # of each kind in BOUNDS the tensors, on the CPU
_UNLIKE_FRESH = ('sampling_offsets', 'attention_weights', 'reg_branches')


@contextmanager
def true_float32() -> Iterator[None]:
    """Compute float32 as float32: cuDNN's convolutions take TF32, of ten bits, where they may."""
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    kept = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, allowed in zip(places, kept, strict=True):
            place.allow_tf32 = allowed


def small_config() -> ConfigDict:
    """The R18 model of the shapes set, with nothing that random numbers decide."""
    return load_config('dino_r1_r18_shapes.py', _WITHOUT_CHANCE)


def small_model(cfg: ConfigDict, device: torch.device) -> Contender:
    """DINO-R1 with the same weights each time, unlike fresh ones.

    Those sample exactly at the centres of cells, where the gradient jumps, and move no box.
    """
    torch.manual_seed(0)
    contender = build_contender(DINO_R1, cfg, device, torch.float32, recompute=False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in contender.model.named_parameters():
        if any(part in name for part in _UNLIKE_FRESH):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.1 * noise.to(device)
    contender.model.reference_model.refresh(contender.model)
    return contender


def listen(cfg: ConfigDict, device: torch.device) -> Said:
    """What the small model says on a device: outputs, losses and gradients, by name."""
    contender = small_model(cfg, device)
    torch.manual_seed(0)
    contender.show_classes(WORKLOAD.classes)
    model = contender.model.eval()
    data = model.data_preprocessor(WORKLOAD.training_batch(), False)
    with torch.no_grad():
        logits, boxes = model(**data, mode='tensor')
    data = model.train().data_preprocessor(WORKLOAD.training_batch(), True)
    losses = model.loss(**{'batch_' + key: value for key, value in data.items()})
    total, logged = model.parse_losses(losses)
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    said = dict(logits=logits, boxes=boxes), logged, gradients
    return {
        kind: {name: value.detach().cpu() for name, value in of.items()}
        for kind, of in zip(BOUNDS, said, strict=True)
    }


def largest_differences(one: Said, other: Said) -> dict[str, dict]:
    """Of outputs, losses and gradients: ``difference``, relative, and the ``worst`` of them.

    A difference is relative to the largest value of the tensor it lies in, or to a thousandth of
    the largest of all where that is more.
    """
    return {kind: _largest(one[kind], other[kind]) for kind in BOUNDS}


def _largest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict:
    floor = 1e-3 * max(float(value.abs().max()) for value in one.values())
    found = {}
    for name, value in one.items():
        away = (value - other[name]).abs().nan_to_num(torch.inf, torch.inf)
        found[name] = float(away.max()) / max(float(value.abs().max()), floor)
    worst = max(found, key=found.get)
    return dict(difference=found[worst], worst=worst)


def take_steps(model: BaseModel, cfg: ConfigDict, dtype: str, batches: list[dict]) -> dict:
    """A row on steps as a training takes them, with ``--amp`` unless float32; batches change."""
    wrapper_cfg = dict(cfg.optim_wrapper)
    if dtype != 'float32':
        # a few steps would not find float16's scale from 2**16
        scale = dict(init_scale=2.0**8) if dtype == 'float16' else 'dynamic'
        wrapper_cfg |= dict(type='AmpOptimWrapper', loss_scale=scale, dtype=dtype)
    with quiet():
        wrapper = build_optim_wrapper(model, wrapper_cfg)
    on_cuda = next(model.parameters()).is_cuda
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    losses, seconds = [], []
    for batch in batches:
        start = time.perf_counter()
        losses.append(model.train_step(batch, wrapper)['loss'].item())
        if on_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    weights = all(bool(value.isfinite().all()) for value in model.parameters())
    return {
        'precision': dtype,
        'finite': weights and all(map(math.isfinite, losses)),
        'fused AdamW': bool(wrapper.optimizer.defaults.get('fused')),
        'scale': wrapper.loss_scaler.get_scale() if dtype != 'float32' else None,
        'first loss': losses[0],
        'last loss': losses[-1],
        'first step, s': seconds[0],
        'median of the others, s': median(seconds[1:]),
        'peak memory, GiB': torch.cuda.max_memory_allocated() / 2**30 if on_cuda else None,
    }
