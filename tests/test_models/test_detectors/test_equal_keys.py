"""Keys that set one size in several places: what differs is named with its values."""

import pytest
from conftest import CONFIGS, build_tiny, mm_grounding_dino_cfg, tiny_model_cfg
from mmengine.config import Config

from mmdet_dino_r1.models.detectors.equal_keys import explain_unequal

IN_LEVELS = [
    'num_feature_levels',
    'neck.num_outs',
    'prompt_encoder.num_levels',
    'encoder.layer_cfg.self_attn_cfg.num_levels',
    'decoder.layer_cfg.cross_attn_cfg.num_levels',
]
IN_WIDTH = [
    'neck.out_channels',
    'prompt_encoder.embed_dims',
    'encoder.layer_cfg.self_attn_cfg.embed_dims',
    'encoder.layer_cfg.ffn_cfg.embed_dims',
    'encoder.text_layer_cfg.self_attn_cfg.embed_dims',
    'encoder.text_layer_cfg.ffn_cfg.embed_dims',
    'encoder.fusion_layer_cfg.v_dim',
    'encoder.fusion_layer_cfg.l_dim',
    'decoder.layer_cfg.self_attn_cfg.embed_dims',
    'decoder.layer_cfg.cross_attn_text_cfg.embed_dims',
    'decoder.layer_cfg.cross_attn_cfg.embed_dims',
    'decoder.layer_cfg.ffn_cfg.embed_dims',
    'bbox_head.embed_dims',
]


def said(**changes) -> list[str]:
    """What is said of the shipped Swin-T with changes, '.' as '__'."""
    cfg = Config.fromfile(CONFIGS / '_base_/models/vis_gdino_swin_t_model.py')
    cfg.merge_from_dict({f'model.{key.replace("__", ".")}': to for key, to in changes.items()})
    return (explain_unequal(cfg.model) or '').splitlines()[1:]


def test_shipped_and_small_models_are_right():
    for path in sorted([*CONFIGS.glob('*.py'), *CONFIGS.glob('_base_/models/*.py')]):
        assert explain_unequal(Config.fromfile(path).model) is None, path.name
    assert explain_unequal(tiny_model_cfg()) is None
    for size in 'tbl':
        assert explain_unequal(mm_grounding_dino_cfg(size)) is None


@pytest.mark.parametrize('key', IN_LEVELS)
def test_levels_changed_in_one_place(key):
    others = ', '.join(f'model.{other}' for other in IN_LEVELS if other != key)
    both = [f'5 in model.{key}', f'4 in {others}']
    first, second = both if key == IN_LEVELS[0] else both[::-1]
    assert said(**{key: 5}) == [f'  feature levels: {first}; {second}']


@pytest.mark.parametrize('key', IN_WIDTH)
def test_width_changed_in_one_place(key):
    (line,) = said(**{key: 128})
    assert f'128 in model.{key}' in line.removeprefix('  width: ').split('; ')
    assert line.count('model.') == len(IN_WIDTH) + 1


def test_width_of_the_positions():
    (line,) = said(positional_encoding__num_feats=64)
    assert line.endswith('; 128 in model.positional_encoding.num_feats * 2')


def test_levels_and_width_changed_everywhere_are_right():
    assert said(**dict.fromkeys(IN_LEVELS, 5)) == []
    assert said(positional_encoding__num_feats=64, **dict.fromkeys(IN_WIDTH, 128)) == []


def test_maps_of_the_backbone():
    assert said(backbone__out_indices=(0, 1, 2, 3)) == [
        '  number of feature maps: 4 in model.backbone.out_indices; 3 in model.neck.in_channels'
    ]
    assert said(backbone__embed_dims=128) == [
        '  channels of the feature maps: [192, 384, 768] in model.neck.in_channels; '
        '[256, 512, 1024] in model.backbone'
    ]
    resnet = dict(_delete_=True, type='ResNet', depth=50, out_indices=(1, 2, 3))
    assert said(backbone=resnet, neck__in_channels=[512, 1024, 2048]) == []
    assert len(said(backbone=resnet)) == 1
    other = dict(_delete_=True, type='Nobodys', out_indices=(1, 2, 3))
    assert said(backbone=other, neck__in_channels=[1, 2, 3]) == []


def test_the_model_itself_refuses_them():
    with pytest.raises(ValueError, match='4 in model.prompt_encoder.num_levels'):
        build_tiny(prompt_encoder=dict(num_levels=4))
