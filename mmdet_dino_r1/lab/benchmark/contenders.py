"""The models that are compared: ours, and mmdet's Grounding DINO of the same size."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmdet.models.layers import coordinate_to_encoding
from mmdet.models.layers.transformer import dino_layers
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...structures import PromptBank
from .language_model import MAX_TOKENS, language_model_cfg
from .phases import PhaseClock
from .workload import class_name

VIS_GDINO, DINO_R1, MMDET = 'VIS-GDINO', 'DINO-R1', 'mmdet Grounding DINO'
LATE = 'late prompting'  # VIS-GDINO whose image features and decoder do not see the prompts
NAMES = (VIS_GDINO, DINO_R1, LATE, MMDET)
MAX_NAMES = MAX_TOKENS // 2 - 1  # of one token and a full stop each, between start and end
MMDETS_COSTS = dict(
    PromptFocalLossCost='BinaryFocalLossCost',
    PromptBBoxL1Cost='BBoxL1Cost',
    PromptGIoUCost='IoUCost',
)
OURS_ALONE = (
    'prompt_encoder prompt_sampler query_selector gather_prompts text_alignment fusion prompts_from'
).split()
# a step is split into these, in this order
PHASES = ('data', 'text', 'forward', 'reference', 'matching and losses', 'backward', 'optimiser')


@dataclass
class Contender:
    """A model with random weights, its optimiser, and what it takes to time a step of it."""

    name: str
    model: BaseModel
    optim_wrapper: OptimWrapper
    clock: PhaseClock
    device: torch.device
    dtype: torch.dtype  # of autocast; float32: none
    note: str = ''  # what a reader of the figures must know

    def autocast(self) -> torch.autocast:
        """The precision that the network runs in."""
        dtype = None if self.dtype == torch.float32 else self.dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def step(self, batch: dict) -> float:
        """One training step; mmdet's detector writes into the batch. Returns the sum of losses."""
        model, phase = self.model.train(), self.clock.phase
        with phase('data'):
            data = model.data_preprocessor(batch, True)
        with phase('forward'), self.autocast():
            losses = model.loss(data['inputs'], data['data_samples'])
        total, _ = model.parse_losses(losses)
        with phase('backward'):
            self.optim_wrapper.backward(total)
        with phase('optimiser'):
            self.optim_wrapper.step()
            self.optim_wrapper.zero_grad()
        return float(total.detach())

    @torch.no_grad()
    def detect(self, batch: dict) -> int:
        """How many detections there are in the images of a batch, which is written into."""
        with self.autocast():
            results = self.model.eval().test_step(batch)
        return sum(len(result.pred_instances) for result in results)

    def show_classes(self, count: int, chunked_size: int = 40) -> None:
        """Prepare for detection of ``count`` classes: ours gets a bank of random prompts.

        mmdet takes names from the batch, in chunks where there are more than a caption holds.
        """
        if self.name == MMDET:
            self.model.test_cfg.chunked_size = -1 if count <= MAX_NAMES else chunked_size
            return
        names = tuple(class_name(index) for index in range(count))
        self.model.set_prompt_bank(PromptBank(names, torch.randn(count, self.model.embed_dims)))


@contextmanager
def quiet() -> Iterator[None]:
    """Spare the reader a line for each parameter that is initialised or optimised."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@quiet()
def build_contender(
    name: str, cfg: ConfigDict, device: torch.device, dtype: torch.dtype, recompute: bool
) -> Contender:
    """Build one of ``NAMES`` from a whole config, ``recompute`` with its checkpointing."""
    model_cfg = copy.deepcopy(cfg.model)
    # pre-trained weights change no speed; text alignment needs a file of embeddings
    model_cfg.backbone.pop('init_cfg', None)
    model_cfg.text_alignment = None
    num_cp = model_cfg.encoder.get('num_cp', 0) if recompute else 0
    model_cfg.encoder.num_cp = num_cp
    if 'with_cp' in model_cfg.backbone:
        model_cfg.backbone.with_cp = model_cfg.backbone.with_cp and recompute
    note = ''
    with TemporaryDirectory(prefix='random_bert_') as folder:
        if name == MMDET:
            language_model, note = language_model_cfg(Path(folder))
            model_cfg = grounding_dino_cfg(model_cfg, language_model)
            dino_layers.coordinate_to_encoding = at_published_width
        else:
            grqo = model_cfg.bbox_head.get('loss_grqo') or dict(type='GRQOLoss')
            model_cfg.bbox_head.loss_grqo = grqo if name == DINO_R1 else None
            if name == LATE:
                joint = dict(type='JointPromptEncoder', num_levels=model_cfg.num_feature_levels)
                model_cfg.update(fusion=False, prompts_from='memory', prompt_encoder=joint)
        model = MODELS.build(model_cfg)
        model.init_weights()
    _unlike_fresh(model.backbone)
    if name == MMDET:
        for layer in (*model.encoder.layers[:num_cp], *model.encoder.fusion_layers[:num_cp]):
            # what fairscale does for mmdet's num_cp, which is not needed for that
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    model.to(device)
    clock = PhaseClock(device)
    clock.watch(model.bbox_head, 'loss', 'matching and losses')
    if name == DINO_R1:
        model.reference_model.refresh(model)
        clock.watch(model.reference_model, 'objectness_logits', 'reference')
    if name == MMDET:
        clock.watch(model.language_model, 'forward', 'text')
    # the precision is autocast's business here, see Contender.autocast
    optim_cfg = dict(copy.deepcopy(cfg.optim_wrapper), type='OptimWrapper')
    for key in ('dtype', 'loss_scale', 'use_fp16'):
        optim_cfg.pop(key, None)
    optim_wrapper = build_optim_wrapper(model, optim_cfg)
    return Contender(name, model, optim_wrapper, clock, device, dtype, note)


def grounding_dino_cfg(model_cfg: ConfigDict, language_model: dict) -> ConfigDict:
    """Config of mmdet's Grounding DINO of the same sizes as a ``DINOR1``."""
    cfg = copy.deepcopy(model_cfg)
    for key in OURS_ALONE:
        cfg.pop(key, None)
    cfg.type = 'GroundingDINO'
    if cfg.backbone.type == 'FusedSwinTransformer':
        cfg.backbone.type = 'SwinTransformer'
    cfg.language_model = language_model
    cfg.encoder.num_cp = 0  # would need fairscale; see build_contender
    cfg.bbox_head.type = 'GroundingDINOHead'
    cfg.bbox_head.pop('loss_grqo', None)
    cfg.bbox_head.pop('query_reward', None)
    cfg.bbox_head.contrastive_cfg = dict(cfg.bbox_head.contrastive_cfg, max_text_len=MAX_TOKENS)
    cfg.train_cfg.assigner.type = 'HungarianAssigner'
    for cost in cfg.train_cfg.assigner.match_costs:
        cost.type = MMDETS_COSTS.get(cost.type, cost.type)
    cfg.bbox_head.loss_iou.type = 'GIoULoss'
    cfg.test_cfg = dict(max_per_img=cfg.test_cfg.get('max_per_img', 300))
    return cfg


def _unlike_fresh(backbone: nn.Module) -> None:
    """Give zero biases small values, as any training does.

    With zeros the padding of Swin's shifted windows comes out as denormal numbers (values of 0
    beside softmax weights of e^-100), which a CPU multiplies many times more slowly.
    """
    for name, parameter in backbone.named_parameters():
        if name.endswith('bias') and not parameter.any():
            nn.init.normal_(parameter, std=0.01)


def at_published_width(boxes: torch.Tensor, num_feats: int = 128) -> torch.Tensor:
    """Encode boxes (..., 4) (cx, cy, w, h) by 128 features a coordinate, as mmdet's model needs.

    onedl-mmdetection 3.5.1's Grounding DINO asks for more and does not run (see ``PromptDecoder``).
    """
    return coordinate_to_encoding(boxes, min(num_feats, 128))


def fit_classes(cfg: ConfigDict, classes: int) -> ConfigDict:
    """A copy of a whole config ``cfg`` whose label embedding is large enough for ``classes``."""
    cfg = copy.deepcopy(cfg)
    cfg.model.bbox_head.num_classes = max(cfg.model.bbox_head.num_classes, classes)
    return cfg


def apart_in_tests(contenders: Iterable[Contender]) -> list[Contender]:
    """Without VIS-GDINO where DINO-R1 is: outside training they are one network."""
    known = {contender.name: contender for contender in contenders}
    return [c for name, c in known.items() if name != VIS_GDINO or DINO_R1 not in known]


def count_parameters(model: nn.Module) -> int:
    """Of everything that is trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
