"""EfficientNet-Lite0: mmdet's EfficientNet with timm's weights."""

from __future__ import annotations

import re

from mmdet.models.backbones import EfficientNet
from mmdet.registry import MODELS

# timm begins a stage where the channels change, mmdet only where the stride does:
# timm's stage -> mmdet's layer and the first of its blocks
_PLACES = {0: (1, 0), 1: (2, 0), 2: (3, 0), 3: (4, 0), 4: (4, 3), 5: (5, 0), 6: (5, 4)}
_PARTS = dict(conv_pw='expand_conv.conv', bn1='expand_conv.bn')
_PARTS |= dict(conv_dw='depthwise_conv.conv', bn2='depthwise_conv.bn')
_PARTS |= dict(conv_pwl='linear_conv.conv', bn3='linear_conv.bn')
# the first block does not expand
_FIRST_PARTS = dict(conv_dw='depthwise_conv.conv', bn1='depthwise_conv.bn')
_FIRST_PARTS |= dict(conv_pw='linear_conv.conv', bn2='linear_conv.bn')


def mmdet_key(key: str) -> str:
    """Name in mmdet of a parameter of timm's ``tf_efficientnet_lite0``; any other as it is."""
    if match := re.fullmatch(r'(conv_stem|bn1)\.(\w+)', key):
        part, kind = match.groups()
        return f'layers.0.{"bn" if part == "bn1" else "conv"}.{kind}'
    if not (match := re.fullmatch(r'blocks\.([0-6])\.(\d+)\.(\w+)\.(\w+)', key)):
        return key
    stage, block, part, kind = match.groups()
    layer, first = _PLACES[int(stage)]
    part = (_PARTS if int(stage) else _FIRST_PARTS).get(part, part)
    return f'layers.{layer}.{first + int(block)}.{part}.{kind}'


@MODELS.register_module()
class EfficientNetLite0(EfficientNet):
    """EfficientNet-B0 without squeeze-and-excitation and with ReLU6.

    Of RGB images, (bs, 3, height, width) with mean and standard deviation 127.5, it makes features
    of 40, 112 and 320 channels at strides 8, 16 and 32. Loads its own ``state_dict`` and that of
    timm's ``tf_efficientnet_lite0``, whose head and classifier find no place.

    Source: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

    Args:
        out_indices: layers whose outputs are given, 0 (the stem) to 5.
        norm_eval: BatchNorm keeps its statistics in training; ``ReferenceModel`` says why.
        **kwargs: of mmdet's ``EfficientNet``, all but ``arch`` and ``act_cfg``.
    """

    layer_settings = dict(  # the parent's; the third number is of squeeze-and-excitation
        b=[
            [[*block[:2], 0, *block[3:]] for block in layer]
            for layer in EfficientNet.layer_settings['b']
        ]
    )

    def __init__(self, out_indices=(3, 4, 5), norm_eval: bool = True, **kwargs) -> None:
        kwargs |= dict(out_indices=out_indices, norm_eval=norm_eval)
        super().__init__(arch='b0', act_cfg=dict(type='ReLU6'), **kwargs)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[prefix + mmdet_key(key.removeprefix(prefix))] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
