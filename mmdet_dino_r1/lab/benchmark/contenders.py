"""The models that are compared: VIS-GDINO, DINO-R1 and mmdet's Grounding DINO of the same size."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from mmdet.models.layers.transformer import dino_layers
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...structures import PromptBank
from .language_model import language_model_cfg
from .phases import PhaseClock
from .workload import class_name

VIS_GDINO, DINO_R1, MMDET = 'VIS-GDINO', 'DINO-R1', 'mmdet Grounding DINO'
NAMES = (VIS_GDINO, DINO_R1, MMDET)
MAX_TOKENS = 256  # of a caption, in mmdet's Grounding DINO
MMDETS_COSTS = dict(
    PromptFocalLossCost='BinaryFocalLossCost',
    PromptBBoxL1Cost='BBoxL1Cost',
    PromptGIoUCost='IoUCost',
)
OURS_ALONE = 'prompt_encoder prompt_sampler query_selector gather_prompts text_alignment'.split()
# a step is split into these, in this order
PHASES = ('data', 'text', 'forward', 'reference', 'matching and losses', 'backward', 'optimiser')


@dataclass
class Contender:
    """A model with its optimiser, and what it takes to time a step of it.

    Attributes:
        name: one of ``NAMES``.
        model: with random weights, on ``device``.
        optim_wrapper: the config's.
        clock: what phases are measured with.
        device: where it runs.
        dtype: of autocast; float32: none.
        note: what a reader of the figures must know.
    """

    name: str
    model: BaseModel
    optim_wrapper: OptimWrapper
    clock: PhaseClock
    device: torch.device
    dtype: torch.dtype
    note: str = ''

    def autocast(self) -> torch.autocast:
        """The precision that the network runs in."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)

    def step(self, batch: dict) -> float:
        """One training step.

        Args:
            batch: as a data loader gives it; mmdet's detector writes into its samples.

        Returns:
            The sum of the losses.
        """
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
        """Detections in the images of ``batch``, which is written into; how many there are."""
        with self.autocast():
            results = self.model.eval().test_step(batch)
        return sum(len(result.pred_instances) for result in results)

    def show_classes(self, count: int, chunked_size: int = 40) -> None:
        """Prepare for detection of ``count`` classes.

        Ours gets a bank of random prompts. mmdet takes names from the batch, in chunks of
        ``chunked_size`` names where there are more than its 256 tokens hold.
        """
        if self.name == MMDET:
            fits = tokens_of(count) <= MAX_TOKENS
            self.model.test_cfg.chunked_size = -1 if fits else chunked_size
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
    """Build one of the models from a config of this package.

    Args:
        name: one of ``NAMES``.
        cfg: a whole config; its model, optimiser and the rest are left as they are.
        device: where to put it.
        dtype: of autocast.
        recompute: with the config's activation checkpointing, else without any.

    Returns:
        With random weights; the reference model, where there is one, is a snapshot of them.
    """
    model_cfg = copy.deepcopy(cfg.model)
    # pre-trained weights change no speed; text alignment needs a file of embeddings
    model_cfg.backbone.pop('init_cfg', None)
    model_cfg.text_alignment = None
    num_cp = model_cfg.encoder.get('num_cp', 0) if recompute else 0
    model_cfg.encoder.num_cp = num_cp
    if 'with_cp' in model_cfg.backbone:
        model_cfg.backbone.with_cp = model_cfg.backbone.with_cp and recompute
    note = ''
    with ExitStack() as files:
        if name == MMDET:
            language_model, note = files.enter_context(language_model_cfg())
            model_cfg = grounding_dino_cfg(model_cfg, language_model)
            _mend_mmdet()
        else:
            grqo = model_cfg.bbox_head.get('loss_grqo') or dict(type='GRQOLoss')
            model_cfg.bbox_head.loss_grqo = grqo if name == DINO_R1 else None
        model = MODELS.build(model_cfg)
        model.init_weights()
    _unlike_fresh(model.backbone)
    if name == MMDET:
        for layer in (*model.encoder.layers[:num_cp], *model.encoder.fusion_layers[:num_cp]):
            # what fairscale does for mmdet's num_cp, which is not needed for that
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    model.to(device)
    if name == DINO_R1:
        model.reference_model.refresh(model)
    clock = PhaseClock(device)
    clock.watch(model.bbox_head, 'loss', 'matching and losses')
    if name == DINO_R1:
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
    """Config of mmdet's Grounding DINO of the same sizes as one of our detectors.

    Args:
        model_cfg: of a ``DINOR1``.
        language_model: config of what gives the text.
    """
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


def _mend_mmdet() -> None:
    """Let onedl-mmdetection 3.5.1's own Grounding DINO run (see ``PromptDecoder``)."""
    encode = dino_layers.coordinate_to_encoding
    if not hasattr(encode, 'published_width'):
        dino_layers.coordinate_to_encoding = at_published_width(encode)


def at_published_width(encode: Callable) -> Callable:
    """Make ``coordinate_to_encoding`` give 128 features a coordinate, whatever it is asked for.

    Args:
        encode: mmdet's, of boxes (cx, cy, w, h).
    """

    def encode_at_published_width(boxes: torch.Tensor, num_feats: int = 128) -> torch.Tensor:
        return encode(boxes, min(num_feats, 128))

    encode_at_published_width.published_width = True
    return encode_at_published_width


def tokens_of(classes: int) -> int:
    """Tokens of a caption of so many class names: name and full stop each, start and end."""
    return 2 * classes + 2


def fit_classes(cfg: ConfigDict, classes: int) -> ConfigDict:
    """A copy of a whole config ``cfg`` whose label embedding is large enough for ``classes``."""
    cfg = copy.deepcopy(cfg)
    cfg.model.bbox_head.num_classes = max(cfg.model.bbox_head.num_classes, classes)
    return cfg


def count_tokens(model_cfg: ConfigDict, height: int, width: int) -> int:
    """Image tokens of all feature levels, of which queries are selected.

    Args:
        model_cfg: of a ``DINOR1`` on ResNet or Swin, whose first feature map has stride 4.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    first = min(model_cfg.backbone.out_indices)
    strides = [4 * 2 ** (first + level) for level in range(model_cfg.num_feature_levels)]
    return sum(-(-height // stride) * -(-width // stride) for stride in strides)


def check_size(cfg: ConfigDict, height: int, width: int) -> None:
    """Make sure that an image has tokens for all queries.

    Args:
        cfg: whole config of one of our models.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        ValueError: it has not.
    """
    tokens = count_tokens(cfg.model, height, width)
    if tokens < cfg.model.num_queries:
        raise ValueError(
            f'An image of {height}x{width} has {tokens} tokens, too few for '
            f'{cfg.model.num_queries} queries. Take larger images, or fewer queries: '
            f'--cfg-options model.num_queries={tokens // 2}'
        )


def count_parameters(model: nn.Module) -> int:
    """Of everything that is trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
