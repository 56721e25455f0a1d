"""The whole family: every model at full size without memory, and a step of each kind."""

from __future__ import annotations

import pytest
import torch
from conftest import CONFIGS, TWO_IMAGES, make_batch, mm_grounding_dino_cfg, with_prompts
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdet_dino_r1.structures import TextEmbeddings, save_text_embeddings

SIZES = ('t', 'b', 'l')
TRAINING = ('coco', 'o365', 'coco_from_o365', 'finetune')
BENCHMARKS = ('coco', 'lvis', 'lvis_minival', 'odinw13', 'odinw35')


@MODELS.register_module(force=True)
class NoLanguageModel(nn.Module):
    """Stands for BERT, of which Grounding DINO's constructor asks only the width."""

    def __init__(self, **kwargs) -> None:
        super().__init__()
        self.language_backbone = nn.Module()
        self.language_backbone.body = nn.Module()
        self.language_backbone.body.language_dim = 768


def config(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


@pytest.fixture
def build_without_memory(monkeypatch):
    """Builds a model on the meta device."""
    on_cpu = torch.linspace
    # Swin reads its drop-path rates from a tensor, which a meta tensor does not allow
    monkeypatch.setattr(torch, 'linspace', lambda *a, **k: on_cpu(*a, **dict(k, device='cpu')))

    def build(cfg: dict) -> nn.Module:
        with torch.device('meta'):
            return MODELS.build(cfg)

    return build


def sizes_of(model: nn.Module) -> dict[str, int]:
    count = {name: 0 for name, _ in model.named_children()} | dict(level_embed=0)
    for name, parameter in model.named_parameters():
        count[name.split('.')[0]] += parameter.numel()
    return {name: number for name, number in count.items() if number}


@pytest.mark.parametrize('size', SIZES)
def test_model_is_grounding_dino_less_language_plus_prompt_encoder(size, build_without_memory):
    cfg = mm_grounding_dino_cfg(size)
    cfg.language_model = dict(type='NoLanguageModel')
    ours_cfg = config(f'dino_r1_swin_{size}_zeroshot_coco').model
    cfg.bbox_head.num_classes = ours_cfg.bbox_head.num_classes
    theirs = sizes_of(build_without_memory(cfg))
    ours = sizes_of(build_without_memory(ours_cfg))
    assert ours.pop('prompt_encoder') > 0
    assert theirs.pop('text_feat_map') == 768 * 256 + 256
    assert ours == theirs


def test_total_sizes(build_without_memory):
    """In millions of parameters, with 365 denoising labels."""
    totals = {}
    for size in SIZES:
        model = build_without_memory(config(f'vis_gdino_swin_{size}_finetune').model)
        totals[size] = round(sum(p.numel() for p in model.parameters()) / 1e6, 1)
    assert totals == dict(t=65.7, b=125.7, l=235.8)


@pytest.mark.parametrize('size', SIZES)
def test_every_config_of_a_size_is_there_and_has_its_model(size):
    model = {'t': 96, 'b': 128, 'l': 192}[size]
    levels = 5 if size == 'l' else 4
    names = [*TRAINING, *(f'zeroshot_{name}' for name in BENCHMARKS)]
    for name in names:
        for method in ('dino_r1', 'vis_gdino'):
            cfg = config(f'{method}_swin_{size}_{name}')
            assert cfg.model.backbone.embed_dims == model
            grqo = cfg.model.bbox_head.get('loss_grqo')
            assert (grqo is not None) == (method == 'dino_r1' and name in TRAINING)
            assert ('reference_model' in cfg.default_hooks) == (grqo is not None)
            widths = [
                cfg.model.num_feature_levels,
                cfg.model.neck.num_outs,
                cfg.model.prompt_encoder.num_levels,
                cfg.model.encoder.layer_cfg.self_attn_cfg.num_levels,
                cfg.model.decoder.layer_cfg.cross_attn_cfg.num_levels,
            ]
            assert widths == [levels] * 5


@pytest.mark.parametrize('size', SIZES)
def test_schedules(size):
    o365 = config(f'dino_r1_swin_{size}_o365')
    assert o365.default_hooks.reference_model.start_epoch == 1  # "1 + 5"
    assert o365.train_cfg.max_epochs == config(f'vis_gdino_swin_{size}_o365').train_cfg.max_epochs
    assert (o365.train_cfg.max_epochs, o365.auto_scale_lr.base_batch_size) == (6, 128)
    assert o365.model.bbox_head.num_classes == 365
    coco = config(f'dino_r1_swin_{size}_coco')
    assert coco.default_hooks.reference_model.start_epoch == 0
    assert (coco.train_cfg.max_epochs, coco.param_scheduler[1].milestones) == (12, [8, 11])
    assert (coco.optim_wrapper.optimizer.lr, coco.auto_scale_lr.base_batch_size) == (4e-4, 64)
    assert coco.load_from is None
    for method in ('dino_r1', 'vis_gdino'):
        cfg = config(f'{method}_swin_{size}_coco_from_o365')
        assert cfg.load_from == f'work_dirs/{method}_swin_{size}_o365/epoch_6.pth'


def shrunken(size: str) -> Config:
    """The training config for an image of 128 pixels; B and L without their depth."""
    cfg = config(f'dino_r1_swin_{size}_coco')
    cfg.model.num_queries = 100
    cfg.model.backbone.init_cfg = None
    cfg.model.dn_cfg.group_cfg.num_dn_queries = 10
    if size != 't':
        cfg.model.backbone.depths = [1, 1, 1, 1]
        cfg.model.encoder.num_layers = cfg.model.decoder.num_layers = 2
        cfg.model.encoder.num_cp = 1
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize('size', SIZES)
def test_one_step_and_one_prediction(size, tmp_path):
    cfg = shrunken(size)
    names = tuple(f'class {label}' for label in range(80))
    texts = TextEmbeddings(names, torch.randn(80, 768), {})
    cfg.model.text_alignment.embeddings = str(save_text_embeddings(texts, tmp_path / 'texts'))
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.text_alignment.set_classes(names)
    model.reference_model.refresh(model)
    model.bbox_head.loss_grqo.active = True
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    images, samples = make_batch(TWO_IMAGES, size=128)
    before = model.prompt_encoder.content.weight.detach().clone()
    loss, logged = model.parse_losses(model.train().loss(images, samples))
    assert torch.isfinite(loss)
    assert {'loss_prompt_text', 'grqo_kl', 'enc_loss_cls'} <= logged.keys()
    optimizer.update_params(loss)
    assert not torch.equal(before, model.prompt_encoder.content.weight)

    prompted = with_prompts(samples, [([[4, 4, 24, 30]], [2]), ([[8, 8, 40, 40]], [7])])
    with torch.no_grad():
        found = model.eval().predict(images, prompted)
    for sample, label in zip(found, (2, 7), strict=True):
        boxes = sample.pred_instances.bboxes
        assert len(boxes) == 100 and set(sample.pred_instances.labels.tolist()) == {label}
        assert boxes.min() >= 0 and boxes.max() <= 128
