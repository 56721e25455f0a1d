"""Every config parses, names what exists, and says what it should."""

from pathlib import Path

import mmdet
import pytest
from conftest import CONFIGS
from mmdet import registry as mmdet_registries
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import Registry

from mmdet_dino_r1.checks.config_keys import misspelt_keys
from mmdet_dino_r1.lab.study.grid import Run, evaluation_config, load_grid, training_config
from mmdet_dino_r1.lab.study.run import explain_unmeasured

LEAVES = sorted(CONFIGS.glob('*.py'))
GRIDS = sorted(CONFIGS.glob('studies/*.py'))
BENCHMARKS = ('coco', 'lvis', 'lvis_minival', 'odinw13', 'odinw35')


def types_in(value):
    """Every ``type`` anywhere in a config."""
    if isinstance(value, dict):
        if isinstance(value.get('type'), str):
            yield value['type']
        for item in value.values():
            yield from types_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from types_in(item)


def is_registered(name: str) -> bool:
    registries = [r for r in vars(mmdet_registries).values() if isinstance(r, Registry)]
    return any(registry.get(name) is not None for registry in registries)


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_types_are_registered(path):
    cfg = Config.fromfile(path)
    names = set(types_in(cfg.to_dict()))
    # looked up in torch or mmcv by mmdet's components, not in a registry of mmdet
    names -= {'GN', 'LN', 'BN', 'nms'}
    assert [name for name in sorted(names) if not is_registered(name)] == []


def config(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


PLUS = [path for path in LEAVES if path.stem.startswith('dino_r1_plus')]


@pytest.mark.parametrize(
    'path',
    [
        path
        for path in LEAVES
        if path.stem.startswith('dino_r1') and 'zeroshot' not in path.stem and path not in PLUS
    ],
    ids=lambda p: p.stem,
)
def test_dino_r1_is_its_baseline_plus_grqo(path):
    ours = Config.fromfile(path).to_dict()
    baseline = baseline_of(path.stem).to_dict()
    grqo = ours['model']['bbox_head'].pop('loss_grqo')
    assert grqo['type'] == 'GRQOLoss'
    assert ours['default_hooks'].pop('reference_model')['type'] == 'ReferenceModelHook'
    for key in ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'default_hooks'):
        assert ours[key] == baseline[key], key
    if 'pet_dino' in path.stem:
        assert ours['load_from'] == baseline['load_from']


@pytest.mark.parametrize('path', PLUS, ids=lambda p: p.stem)
def test_dino_r1_plus_is_the_baseline_with_what_won(path):
    ours = Config.fromfile(path).to_dict()
    baseline = config(path.stem.replace('dino_r1_plus', 'vis_gdino')).to_dict()
    ours.pop('quality_loss'), ours.pop('prompt_contrast')
    assert ours['model'].pop('prompt_contrast') == dict(type='PromptContrastiveLoss')
    assert ours['model']['bbox_head'].pop('loss_cls') == dict(type='PromptQualityFocalLoss')
    del baseline['model']['bbox_head']['loss_cls']
    assert ours == baseline


def baseline_of(name: str) -> Config:
    """The same without GRQO; from PET-DINO to COCO none is shipped."""
    if 'pet_dino' not in name:
        return config(name.replace('dino_r1', 'vis_gdino'))
    size = name[len('dino_r1_swin_')]
    cfg = config(f'pet_dino_swin_{size}_finetune')
    if name.endswith('coco'):
        cfg.merge_from_dict(Config.fromfile(CONFIGS / '_base_/datasets/coco_prompted.py').to_dict())
    return cfg


@pytest.mark.parametrize('path', GRIDS, ids=lambda p: p.stem)
def test_every_variant_of_a_study_trains_and_tests(path):
    grid = load_grid(path)
    for number, variant in enumerate(grid.variants.values()):
        cfg = training_config(grid, Run(variant, 1), Path('out'))
        assert cfg.randomness.seed == 1, variant.name
        hooks = types_in(cfg.get('custom_hooks', []))
        assert all(map(is_registered, hooks)) and not misspelt_keys(cfg), variant.name
        for name in grid.evaluations:
            tested = evaluation_config(cfg, grid, name, 1)
            dataset = tested.test_dataloader.dataset
            assert tested.test_evaluator.ann_file == dataset.data_root + dataset.ann_file
            assert tested.default_hooks.prompt_bank.bank.seed == 1
            assert explain_unmeasured(tested) is None, variant.name
            # what a test changes no variant does
            assert number > 0 or not misspelt_keys(tested), name


def test_the_hard_shapes_are_read_from_their_folder_at_their_size():
    for name in ('vis_gdino_r18_shapes_hard', 'dino_r1_r18_shapes_hard'):
        cfg = config(name)
        for split in ('train', 'val', 'test'):
            dataset = cfg[f'{split}_dataloader'].dataset
            assert dataset.data_root == 'data/shapes_hard/'
            (scale,) = [step.scale for step in dataset.pipeline if step.type == 'Resize']
            assert scale == (96, 96)
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            assert evaluator.ann_file == 'data/shapes_hard/annotations/val.json'
        assert (cfg.train_cfg.max_iters, cfg.param_scheduler[1].end) == (400, 400)
    plain = config('vis_gdino_r18_shapes').train_dataloader.dataset.pipeline
    assert plain[2].scale == (128, 128)


def test_published_weights():
    grqo = Config.fromfile(CONFIGS / 'dino_r1_swin_t_coco.py').model.bbox_head.loss_grqo
    assert (grqo.reward_weight, grqo.kl_weight, grqo.advantage) == (0.01, 0.04, 'reward')
    assert grqo.mute_share == pytest.approx(1 / 3)


def test_file_names_are_unique():
    """mim searches configs by base name and refuses two of one name."""
    names = [path.name for path in Path(CONFIGS).rglob('*.py')]
    assert len(names) == len(set(names))


def test_swin_t_has_the_size_of_grounding_dino_plus_the_prompt_encoder():
    """Counts by hand from the layers' sizes."""
    model = MODELS.build(Config.fromfile(CONFIGS / 'dino_r1_swin_t_coco.py').model)
    count = {
        name: sum(p.numel() for p in module.parameters()) for name, module in model.named_children()
    }
    dim, ffn = 256, 2048
    linear = lambda i, o: i * o + o  # noqa: E731
    sampling = linear(dim, 8 * 4 * 4 * 2) + linear(dim, 8 * 4 * 4) + 2 * linear(dim, dim)
    self_attention = linear(dim, 3 * dim) + linear(dim, dim)
    feedforward = linear(dim, ffn) + linear(ffn, dim)
    assert count['prompt_encoder'] == (
        dim
        + linear(2 * dim, dim)
        + linear(dim, dim)
        + sampling
        + self_attention
        + feedforward
        + 3 * 2 * dim
    )
    deformable = sampling + feedforward + 2 * 2 * dim
    prompt_layer = self_attention + linear(dim, 1024) + linear(1024, dim) + 2 * 2 * dim
    fusion = 4 * linear(dim, 1024) + 2 * linear(1024, dim) + 2 * 2 * dim + 2 * dim
    assert count['encoder'] == 6 * (deformable + prompt_layer + fusion)
    decoder_layer = 2 * self_attention + sampling + feedforward + 4 * 2 * dim
    assert count['decoder'] == 6 * decoder_layer + linear(2 * dim, dim) + linear(dim, dim) + 2 * dim
    assert count['query_embedding'] == 900 * dim


@pytest.mark.parametrize('benchmark', BENCHMARKS)
def test_zeroshot_configs_only_test_and_are_the_same_for_the_baseline(benchmark):
    ours = config(f'dino_r1_swin_t_zeroshot_{benchmark}').to_dict()
    assert ours == config(f'vis_gdino_swin_t_zeroshot_{benchmark}').to_dict()
    assert not {key for key in ours if key.startswith(('train_', 'val_', 'optim'))}
    assert ours['model']['bbox_head']['num_classes'] == 365
    for size in 'tl':  # PET-DINO's weights are tested alike
        theirs = config(f'pet_dino_swin_{size}_zeroshot_{benchmark}')
        assert theirs.model.test_cfg == ours['model']['test_cfg']
        for key in ('test_dataloader', 'test_evaluator', 'default_hooks'):
            assert theirs[key] == ours[key], key


def test_prompts_come_from_the_train_split():
    def source(name):
        bank = config(name).default_hooks.prompt_bank.bank
        return bank.data_root + bank.ann_file, bank.shots, bank.seed

    coco = 'data/coco/annotations/instances_train2017.json', 16, 0
    assert source('dino_r1_swin_t_zeroshot_coco') == coco
    lvis = 'data/coco/annotations/lvis_v1_train.json', 16, 0
    assert source('dino_r1_swin_t_zeroshot_lvis') == lvis
    assert source('dino_r1_swin_t_zeroshot_lvis_minival') == lvis
    odinw = config('dino_r1_swin_t_zeroshot_odinw35').test_dataloader.dataset
    for cfg in odinw.datasets.values():
        split, name = ('train_', 'val_') if 'export' in cfg.data_root else ('train/', 'valid/')
        assert cfg.ann_file == f'{name}annotations_without_background.json'
        assert cfg.prompts.ann_file == f'{split}annotations_without_background.json'


def test_evaluators_read_what_is_tested():
    for name in ('coco', 'lvis', 'lvis_minival'):
        cfg = config(f'dino_r1_swin_t_zeroshot_{name}')
        dataset = cfg.test_dataloader.dataset
        assert cfg.test_evaluator.ann_file == dataset.data_root + dataset.ann_file
    lvis = config('dino_r1_swin_t_zeroshot_lvis').model.test_cfg
    assert (lvis.chunk_size, lvis.max_per_chunk) == (40, 300)
    assert lvis.max_per_img == 300 * -(-1203 // 40)  # 31 chunks


@pytest.mark.parametrize('size', [13, 35])
def test_odinw_lies_where_mmdet_expects_it(size):
    """Names, folders and files against mmdet's own config, but for renamed classes' files."""
    path = Path(mmdet.__file__).parent / '.mim/configs/mm_grounding_dino/odinw'
    theirs = Config.fromfile(path / f'grounding_dino_swin-t_pretrain_odinw{size}.py')
    ours = config(f'dino_r1_swin_t_zeroshot_odinw{size}').test_dataloader.dataset
    names = ours.only or list(ours.datasets)
    members = [ours.datasets[name] for name in names]
    expected = theirs.test_dataloader.dataset.datasets
    assert len(members) == len(expected) == size
    for member, other in zip(members, expected, strict=True):
        assert member.data_root == other.data_root
        assert member.ann_file == other.ann_file.replace('new_', '')
        assert member.data_prefix == other.data_prefix
    if size == 35:
        assert names == list(theirs.test_evaluator.dataset_prefixes)
