"""EfficientNet-Lite0 computes from timm's weights what timm's network does, by timm's names."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import nn

from mmdet_dino_r1.models.backbones import EfficientNetLite0

# of the published network, stage by stage: blocks, kernel, stride of the first, expansion, channels
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


def blocks():
    """Name, kernel, stride, channels in, within and out of each block."""
    channels = 32
    for stage, (number, kernel, stride, expansion, out) in enumerate(STAGES):
        for block in range(number):
            step = stride if block == 0 else 1
            yield f'blocks.{stage}.{block}', kernel, step, channels, channels * expansion, out
            channels = out


@pytest.fixture(scope='module')
def timms():
    """A state_dict with timm's names and random values that keep the features near 1."""
    generator, state = torch.Generator().manual_seed(0), {}

    def add(convolution, norm, out, per_group, kernel):
        fan = per_group * kernel**2
        shape = (out, per_group, kernel, kernel)
        state[f'{convolution}.weight'] = torch.randn(shape, generator=generator) / fan**0.5
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            state[f'{norm}.{name}'] = torch.rand(out, generator=generator) * 0.5 + 0.5
        state[f'{norm}.num_batches_tracked'] = torch.tensor(7)

    add('conv_stem', 'bn1', 32, 3, 3)
    for name, kernel, _, channels, within, out in blocks():
        if within == channels:
            add(f'{name}.conv_dw', f'{name}.bn1', within, 1, kernel)
            add(f'{name}.conv_pw', f'{name}.bn2', out, within, 1)
        else:
            add(f'{name}.conv_pw', f'{name}.bn1', within, channels, 1)
            add(f'{name}.conv_dw', f'{name}.bn2', within, 1, kernel)
            add(f'{name}.conv_pwl', f'{name}.bn3', out, within, 1)
    return state


def features_by_hand(state, images):
    """Outputs of timm's stages 2, 4 and 6, from parameters by timm's names."""

    def apply(x, convolution, norm, stride=1, relu=True):
        weight = state[f'{convolution}.weight']
        kernel = weight.shape[-1]
        pads = []  # as TensorFlow pads: as little as needed, the odd one right and below
        for size in (x.shape[3], x.shape[2]):
            pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [pad // 2, pad - pad // 2]
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        x = F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)
        names = ('running_mean', 'running_var', 'weight', 'bias')
        x = F.batch_norm(x, *(state[f'{norm}.{name}'] for name in names), eps=1e-3)
        return x.clamp(0, 6) if relu else x

    x, outputs = apply(images, 'conv_stem', 'bn1', 2), {}
    for name, _, stride, channels, within, out in blocks():
        before = x
        if within == channels:
            x = apply(x, f'{name}.conv_dw', f'{name}.bn1', stride)
            x = apply(x, f'{name}.conv_pw', f'{name}.bn2', relu=False)
        else:
            x = apply(x, f'{name}.conv_pw', f'{name}.bn1')
            x = apply(x, f'{name}.conv_dw', f'{name}.bn2', stride)
            x = apply(x, f'{name}.conv_pwl', f'{name}.bn3', relu=False)
        if stride == 1 and channels == out:
            x = x + before
        outputs[name.split('.')[1]] = x  # the last block of each stage stays
    return outputs['2'], outputs['4'], outputs['6']


def test_features_of_timms_weights_are_those_by_hand(timms, tmp_path):
    torch.save(timms, tmp_path / 'lite0.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'lite0.pth'))
    backbone = MODELS.build(dict(type='EfficientNetLite0', init_cfg=init))
    backbone.init_weights()
    backbone.train()  # statistics of BatchNorm are the checkpoint's in training, too
    images = torch.randn(2, 3, 70, 97, generator=torch.Generator().manual_seed(1))
    features = backbone(images)
    assert [tuple(one.shape) for one in features] == [
        (2, 40, 9, 13),
        (2, 112, 5, 7),
        (2, 320, 3, 4),
    ]
    for one, expected in zip(features, features_by_hand(timms, images), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4)
    for key, value in backbone.state_dict().items():
        assert 'num_batches' not in key or value == 7


def test_every_parameter_has_a_place_below_any_prefix(timms):
    detector = nn.ModuleDict(dict(backbone=EfficientNetLite0()))
    detector.load_state_dict({f'backbone.{key}': value for key, value in timms.items()})
    again = nn.ModuleDict(dict(backbone=EfficientNetLite0()))
    again.load_state_dict(detector.state_dict())  # its own names
    torch.testing.assert_close(dict(again.state_dict()), dict(detector.state_dict()))
    lacking = {f'backbone.{key}': value for key, value in timms.items() if key != 'bn1.weight'}
    lacking['backbone.classifier.weight'] = torch.zeros(1000, 1280)
    lost = detector.load_state_dict(lacking, strict=False)
    assert lost.missing_keys == ['backbone.layers.0.bn.weight']
    assert lost.unexpected_keys == ['backbone.classifier.weight']


def test_frozen_stages_learn_nothing_and_the_others_all():
    backbone = EfficientNetLite0(out_indices=(4, 5), frozen_stages=4)
    backbone.train()
    sum(one.square().sum() for one in backbone(torch.randn(1, 3, 64, 64))).backward()
    learning = {name.split('.')[1] for name, p in backbone.named_parameters() if p.grad is not None}
    assert learning == {'4', '5'}
    later = [p for layer in backbone.layers[4:] for p in layer.parameters()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in later)
