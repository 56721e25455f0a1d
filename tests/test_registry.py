"""Configs taken as ``mmdet_dino_r1::configs/x.py`` carry our scope; it must build all the same."""

import pytest
from mmengine.registry import HOOKS, MODELS

import mmdet_dino_r1.registry  # noqa: F401  what mmengine does on meeting the scope


@pytest.mark.parametrize(
    ('hook', 'package'),
    [
        ('ReferenceModelHook', 'mmdet_dino_r1'),
        ('CheckInvalidLossHook', 'mmdet'),
        ('IterTimerHook', 'mmengine'),
    ],
)
def test_our_scope_finds_ours_mmdets_and_mmengines(capsys, hook, package):
    built = HOOKS.build(dict(type=hook, _scope_='mmdet_dino_r1'))
    assert type(built).__module__.split('.')[0] == package
    assert 'Failed' not in capsys.readouterr().out


def test_what_is_nested_builds_under_our_scope():
    neck = MODELS.build(
        dict(
            type='ChannelMapper',
            _scope_='mmdet_dino_r1',
            in_channels=[8],
            out_channels=4,
            norm_cfg=dict(type='GN', num_groups=2),
        )
    )
    assert type(neck.convs[0].norm).__name__ == 'GroupNorm'
