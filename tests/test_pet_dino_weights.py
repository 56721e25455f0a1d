"""PET-DINO's weights by every way that takes a checkpoint: taken, reported, or refused."""

from __future__ import annotations

import logging
import re
import sys
from argparse import Namespace
from copy import deepcopy

import cv2
import numpy as np
import pytest
import torch
from conftest import CONFIGS
from mmdet.apis import init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint
from pet_dino_data import needs_pet_dino, published_keys, small_state
from test_engine.test_runner import tiny_cfg

from mmdet_dino_r1 import PromptBank, build_prompt_bank, save_prompt_bank
from mmdet_dino_r1.apis import DINOR1Inferencer
from mmdet_dino_r1.apis.weights import load_weights
from mmdet_dino_r1.checks.preflight import explain_missing
from mmdet_dino_r1.tools.detect import main as detect
from mmdet_dino_r1.tools.launch import launch
from mmdet_dino_r1.utils.checkpoint_fit import UnfitCheckpoint
from mmdet_dino_r1.utils.pet_dino_keys import our_names
from mmdet_dino_r1.utils.safe_files import load_torch_file

NAMES = [path.stem for path in sorted(CONFIGS.glob('*pet_dino*.py'))]
THEIRS = {
    'prompt_encoder.content.': 'visual_prompt_model.content_embedding.',
    'prompt_encoder.image_content.': 'visual_prompt_model.universal_content_embedding.',
    'prompt_encoder.content_map.': 'visual_feat_map.',
    'prompt_encoder.position.': 'visual_prompt_encoder.ref_point_head.',
    'prompt_encoder.layers.': 'visual_prompt_encoder.visual_layers.',
}
LEFT_OUT = ('language_model.', 'text_feat_map.', 'encoder.text_layers.', 'encoder.fusion_layers.')
# Some of what they have for texts; the first is of an older transformers.
OF_TEXT = {
    'language_model.language_backbone.body.model.embeddings.position_ids': (1, 512),
    'text_feat_map.weight': (256, 32),
    'text_feat_map.bias': (256,),
    'encoder.text_layers.0.norms.0.weight': (256,),
    'encoder.fusion_layers.0.gamma_v': (256,),
    'encoder.fusion_layers.1.gamma_v': (256,),
    'decoder.layers.0.cross_attn_text.attn.in_proj_bias': (768,),
    'decoder.layers.0.norms.1.weight': (256,),
}
# The published model made small; what it is not said of has its published size.
SMALL = dict(
    num_queries=60,
    backbone=dict(
        embed_dims=24,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=dict(in_channels=[48, 96, 192]),
    encoder=dict(num_layers=2, num_cp=0, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=384))),
    decoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=384))),
)


def config(name: str, **model) -> Config:
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.merge_from_dict(dict(model=model))
    return cfg


def small_config(name: str, **model) -> Config:
    cfg = config(name, **SMALL)
    cfg.merge_from_dict(dict(model=model))
    return cfg


def of_text(name: str) -> bool:
    in_decoder = '.cross_attn_text.' in name or '.norms.1.' in name
    return name.startswith(LEFT_OUT) or (name.startswith('decoder.') and in_decoder)


def without_memory(cfg: dict, monkeypatch) -> torch.nn.Module:
    on_cpu = torch.linspace
    # Swin reads its drop-path rates from a tensor, which a meta tensor does not allow
    monkeypatch.setattr(torch, 'linspace', lambda *a, **k: on_cpu(*a, **dict(k, device='cpu')))
    with torch.device('meta'):
        return MODELS.build(deepcopy(cfg))


def as_theirs(state: dict) -> dict:
    """A state of our model as PET-DINO has it, texts included."""
    theirs = {name: torch.rand(shape) for name, shape in OF_TEXT.items()}
    for name, value in state.items():
        for begin, their_begin in THEIRS.items():
            name = name.replace(begin, their_begin)
        theirs[name] = value
    return theirs


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A file as PET-DINO's training leaves it, of the small model; the same under our names."""
    init_default_scope('mmdet')
    ours = MODELS.build(small_config('pet_dino_swin_t_finetune').model).state_dict()
    for value in ours.values():
        if value.is_floating_point():
            value.normal_(0, 0.05)
    meta = dict(dataset_meta=dict(CLASSES=('person', 'sneakers'), palette=[(1, 1, 1), (2, 2, 2)]))
    path = tmp_path_factory.mktemp('weights') / 'pet_dino_small.pth'
    content = dict(state_dict=as_theirs(ours), meta=meta | dict(epoch=12, iter=9), message_hub={})
    torch.save(content, path)
    return str(path), ours


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    """Files of the published sizes, by size; each tensor is one number, so they take no room."""
    folder, paths = tmp_path_factory.mktemp('published'), {}
    for size in 'tl':
        with pytest.MonkeyPatch.context() as patch:
            own = without_memory(config(f'pet_dino_swin_{size}_finetune').model, patch)
        state = {name: torch.ones(()).expand(v.shape) for name, v in own.state_dict().items()}
        paths[size] = str(folder / f'pet_dino_swin_{size}.pth')
        torch.save(dict(state_dict=as_theirs(state)), paths[size])
    return paths


@pytest.fixture
def said():
    """What is logged."""
    lines, logger = [], MMLogger.get_current_instance()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def assert_loaded(model, ours: dict, *but: str) -> None:
    state = model.state_dict()
    assert state.keys() == ours.keys()
    for name, value in ours.items():
        assert name.startswith(but or '-') or torch.equal(state[name].cpu(), value), name


@needs_pet_dino
@pytest.mark.parametrize('size', 'tl')
def test_each_config_has_a_home_for_all_but_the_text(size, monkeypatch):
    """Name by name and shape by shape."""
    model = without_memory(config(f'pet_dino_swin_{size}_finetune').model, monkeypatch)
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    given = our_names(published_keys(size))
    assert own == {name: shape for name, shape in given.items() if not of_text(name)}
    assert len(given) - len(own) == 216 + 197 + 2
    expected = config(f'pet_dino_swin_{size}_finetune').model
    for name in NAMES:
        if f'swin_{size}' in name:
            cfg = config(name).model
            cfg.bbox_head.pop('loss_grqo', None)
            cfg.test_cfg = expected.test_cfg
            assert cfg == expected, name


@needs_pet_dino
def test_the_small_model_of_the_numbers():
    model = MODELS.build(small_config('pet_dino_swin_t_finetune').model)
    model.load_state_dict(small_state())
    ours = our_names(small_state())
    assert_loaded(model, {name: ours[name] for name in ours if not of_text(name)})


def test_the_report(small, said):
    path, ours = small
    model = MODELS.build(small_config('pet_dino_swin_t_finetune').model)
    load_checkpoint(model, path, map_location='cpu', strict=True)
    assert_loaded(model, ours)
    assert not any('unexpected key' in line for line in said)
    (report,) = (line for line in said if 'DINOR1 from checkpoint' in line)
    assert report.splitlines() == [
        'DINOR1 from checkpoint:',
        f'  loaded: {len(ours)} of {len(ours)} tensors',
        '  ignored, not part of this model: decoder (2), encoder (3), language_model (1), '
        'text_feat_map (2)',
        '    (language_model, text_feat_map: visual prompts take the place of text)',
        '    (encoder.text_layers, encoder.fusion_layers, cross_attn_text: with fusion=False image '
        'and decoder do not see the prompts; norms.1 is part of it)',
    ]


@pytest.mark.parametrize('name', ['pet_dino_swin_t_finetune', 'dino_r1_swin_t_from_pet_dino_coco'])
def test_a_training_starts_from_them(name, small, tiny_shapes, tmp_path):
    """A step of rate zero, through the real Runner; with GRQO the reference model is PET-DINO."""
    path, ours = small
    cfg = tiny_cfg(tiny_shapes, tmp_path / 'run', name='dino_r1_r18_shapes.py')
    shipped = small_config(name)
    cfg.model, cfg.load_from = shipped.model, path
    cfg.default_hooks.pop('reference_model')
    if 'reference_model' in shipped.default_hooks:
        cfg.default_hooks.reference_model = shipped.default_hooks.reference_model
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=9)
    cfg.optim_wrapper.optimizer.lr = 0.0
    cfg.experiment_name = cfg.visualizer.name = f'{name}_{tmp_path.name}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert_loaded(runner.model, ours)
    has_grqo = name.startswith('dino_r1')
    assert runner.model.reference_model.is_ready == has_grqo
    if has_grqo:
        reference = runner.model.reference_model.state_dict()
        same = {n: torch.equal(v, ours[n]) for n, v in reference.items() if n in ours}
        assert len(same) > 100 and all(same.values())


@pytest.fixture
def command(tiny_shapes, tmp_path, monkeypatch, capsys):
    """Run ``mim train`` or ``mim test`` on a model; exit status and what was said last."""

    def run(stage, model, *words):
        cfg = tiny_cfg(tiny_shapes, tmp_path / 'run', name='vis_gdino_r18_shapes.py')
        cfg.model, cfg.log_level = model, 'ERROR'
        file = tmp_path / f'{len(list(tmp_path.iterdir()))}.py'
        cfg.experiment_name = cfg.visualizer.name = f'{tmp_path.name}_{file.stem}'
        cfg.dump(file)
        monkeypatch.delenv('LOCAL_RANK', raising=False)
        monkeypatch.setattr(sys, 'argv', [stage, str(file), *words])
        status = 0
        try:
            launch(stage)
        except SystemExit as end:
            status = end.code
        return status, capsys.readouterr().err.rpartition('mmdet_dino_r1: ')[2]

    return run


def test_mim_test_takes_them_or_says_which_config(small, command):
    path, _ = small
    fitting = small_config('pet_dino_swin_t_finetune', test_cfg=dict(max_per_img=20)).model
    assert command('test', fitting, path) == (0, '')
    # the denoising labels only train
    fitting.bbox_head.num_classes = 400
    assert command('test', fitting, path) == (0, '')
    other = small_config('vis_gdino_swin_t_finetune').model
    expected = [
        "PET-DINO's weights (Swin-T) are not of this model:",
        '  model.fusion=True, they need False',
        "  model.prompts_from='neck', they need 'memory'",
        "  model.prompt_encoder.type='VisualPromptEncoder', they need 'JointPromptEncoder'",
        'Use a config with their model: pet_dino_swin_t_finetune.py (your own data), '
        'pet_dino_swin_t_zeroshot_coco.py (tests), dino_r1_swin_t_from_pet_dino_finetune.py '
        '(training with GRQO); or inherit from one of them. See docs/weights.md.',
    ]
    status, said = command('test', other, path)
    assert (status, said.splitlines()) == (2, expected)
    status, said = command('train', other, '--cfg-options', f'load_from={path}')
    assert (status, said.splitlines()) == (2, expected)


WRONG = {
    'fused': ('vis_gdino_swin_t_coco', {}, 't', 'model.fusion=True, they need False'),
    'from the neck': (
        *('pet_dino_swin_l_finetune', dict(prompts_from='neck'), 'l'),
        "model.prompts_from='neck', they need 'memory'",
    ),
    'each box alone': (
        'pet_dino_swin_t_finetune',
        dict(prompt_encoder=dict(type='VisualPromptEncoder')),
        't',
        "model.prompt_encoder.type='VisualPromptEncoder', they need 'JointPromptEncoder'",
    ),
    'L for T': (
        *('pet_dino_swin_t_finetune', {}, 'l'),
        'level_embed: checkpoint (5, 256), model (4, 256)',
    ),
    'T for L': (
        *('pet_dino_swin_l_finetune', {}, 't'),
        'level_embed: checkpoint (4, 256), model (5, 256)',
    ),
    'T for B': (
        'pet_dino_swin_t_finetune',
        dict(
            backbone=dict(embed_dims=128, num_heads=[4, 8, 16, 32]),
            neck=dict(in_channels=[256, 512, 1024]),
        ),
        't',
        'backbone.patch_embed.projection.weight: checkpoint (96, 3, 4, 4), model (128, 3, 4, 4)',
    ),
    'a fourth layer': (
        *('pet_dino_swin_t_finetune', dict(prompt_encoder=dict(num_layers=4)), 't'),
        'prompt_encoder.layers.3.self_attn.attn.in_proj_weight: not in the checkpoint',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_they_do_not_fit_is_refused_by_each_loader(case, published, monkeypatch):
    """Tools' and mmengine's; nothing is loaded."""
    name, changes, size, line = WRONG[case]
    model = without_memory(config(name, **changes).model, monkeypatch)
    for load in (load_weights, load_checkpoint):
        with pytest.raises(UnfitCheckpoint) as error:
            load(model, published[size])
        first, *lines, remedy = str(error.value).splitlines()
        assert first == f"PET-DINO's weights (Swin-{size.upper()}) are not of this model:"
        assert f'  {line}' in lines and len(lines) <= 4
        named = [word for word in remedy.split() if word.endswith('.py')]
        assert len(named) == 3 and all(f'swin_{size}' in word for word in named)
        assert all((CONFIGS / word).is_file() for word in named)


def test_a_config_of_ones_own_may_change_what_does_not_come_from_them(small, said):
    """More classes, fewer queries and decoder layers, another prompt encoder of that kind."""
    path, ours = small
    cfg = small_config('pet_dino_swin_t_finetune', num_queries=30)
    cfg.model.bbox_head.num_classes = 400
    cfg.model.test_cfg.chunk_size = 40
    model = MODELS.build(cfg.model)
    load_weights(model, path)
    kept = 'dn_query_generator.label_embedding.weight', 'query_embedding.weight'
    assert_loaded(model, ours, *kept)
    report = '\n'.join(said)
    for name in kept:
        assert f'NOT loaded, shape differs: {name}: checkpoint ' in report


def test_the_text_alignment_takes_their_projection(small):
    texts = dict(type='PromptTextContrastiveLoss', embeddings='none.safetensors', text_dim=32)
    model = MODELS.build(small_config('pet_dino_swin_t_finetune', text_alignment=texts).model)
    load_checkpoint(model, small[0], map_location='cpu')
    given = load_torch_file(small[0])['state_dict']
    for name, value in model.text_feat_map.state_dict().items():
        assert torch.equal(value, given[f'text_feat_map.{name}'])


IMAGE = np.random.default_rng(5).integers(0, 256, (96, 128, 3), np.uint8)


@pytest.fixture
def files(small, tmp_path):
    """Config and checkpoint as for a tool, with small images."""
    cfg = small_config('pet_dino_swin_t_finetune')
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'FixScaleResize':
            step.scale = (96, 128)
    cfg.visualizer.name = str(tmp_path)
    cfg.dump(tmp_path / 'small.py')
    return str(tmp_path / 'small.py'), small[0]


def test_inference_takes_them(files, small):
    """Class names are the prompts', not those that the file was trained on."""
    detector = DINOR1Inferencer(*files, device='cpu', show_progress=False)
    assert_loaded(detector.model, small[1])
    boxes = dict(boxes=[[8, 8, 60, 50], [60, 40, 120, 90]], classes=['a', 'b'])
    found = detector(IMAGE, score_thr=0, **boxes)['predictions'][0]
    assert len(found['scores']) == 60 * 2 and set(found['class_names']) == {'a', 'b'}

    mmdets = init_detector(*files, device='cpu', palette='random')
    assert_loaded(mmdets, small[1])
    mmdets.set_prompt_bank(PromptBank(('a', 'b'), torch.zeros(2, 256)))
    assert tuple(mmdets.dataset_meta['classes']) == ('a', 'b')


def test_the_pages_python_works_as_printed(files, tmp_path, monkeypatch):
    page = (CONFIGS.parent / 'docs/weights.md').read_text(encoding='utf-8')
    code = re.search(r'```python\n(.+?)```', page, re.S)[1]
    for printed, real in zip(
        ('pet_dino_swin_t_finetune.py', 'checkpoints/pet_dino_swin_t.pth'), files, strict=True
    ):
        assert code.count(printed) == 1
        code = code.replace(printed, real)
    monkeypatch.chdir(tmp_path)
    cv2.imwrite('shelf.jpg', np.tile(IMAGE, (3, 2, 1)))
    scope = {}
    exec(code, scope)
    assert scope['results']['classes'] == ('bottle',)
    assert (tmp_path / 'found/vis/shelf.jpg').is_file()


def test_tools_take_them(files, small, tiny_shapes, tmp_path, capsys):
    exemplars = tiny_shapes / 'annotations/train.json'
    bank = build_prompt_bank(*files, ann=exemplars, img=tiny_shapes, shots=2, device='cpu')
    assert len(bank) == 4
    bank = str(save_prompt_bank(bank, tmp_path / 'bank'))
    words = ['--bank', bank, '--input', str(next((tiny_shapes / 'images/val').glob('*.png')))]
    words += ['--out', str(tmp_path / 'found'), '--device', 'cpu']
    assert detect([*files, *words]) == 0
    capsys.readouterr()
    assert detect([str(CONFIGS / 'vis_gdino_r18_shapes.py'), files[1], *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("detect: PET-DINO's weights (Swin-T) are not of this model:")


@pytest.mark.parametrize('name', ['pet_dino_swin_t_finetune', 'dino_r1_swin_l_from_pet_dino_coco'])
def test_where_they_are_not_the_way_to_them_is_said(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config(name)
    said = explain_missing(cfg, Namespace(config=f'{name}.py', resume=None), 'train')
    assert str(tmp_path / cfg.load_from) in said.splitlines()[2]
    assert 'huggingface.co/fuweifu/PET-DINO' in said and 'docs/weights.md' in said
