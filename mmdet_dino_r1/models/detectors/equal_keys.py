"""Keys of a ``DINOR1`` that have to be equal, as they set sizes of parts that meet.

Elsewhere the mistake shows as a tensor of a wrong shape, which names no key. Names: model = the
config of the detector, its parts as dicts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ...config.tree import type_name, walk

# Dotted keys with the value of one that is not set; None: it depends on the part's type.
_LEVELS = {
    'num_feature_levels': 4,
    'neck.num_outs': None,
    'prompt_encoder.num_levels': None,
    'encoder.layer_cfg.self_attn_cfg.num_levels': 4,
    'decoder.layer_cfg.cross_attn_cfg.num_levels': 4,
}
_WIDTHS = {'neck.out_channels': None, 'prompt_encoder.embed_dims': None} | dict.fromkeys(
    (
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
    ),
    256,
)
_PROMPT_ENCODER = dict(num_levels=4, embed_dims=256)  # not set in a prompt encoder of ours


def explain_unequal(model: Mapping) -> str | None:
    """All keys of a model that have to be equal and are not, with their values; None if all are."""
    encoder = model.get('prompt_encoder') or {}
    if type_name(encoder) in ('VisualPromptEncoder', 'JointPromptEncoder'):
        model = dict(model, prompt_encoder=_PROMPT_ENCODER | dict(encoder))
    given = dict(walk(model, ''))
    widths = {key: given.get(key, default) for key, default in _WIDTHS.items()}
    if half := given.get('positional_encoding.num_feats'):
        widths['positional_encoding.num_feats * 2'] = 2 * half
    indices, channels = given.get('backbone.out_indices'), given.get('neck.in_channels')
    maps = {'backbone.out_indices': indices and len(indices)}
    maps['neck.in_channels'] = len(channels) if isinstance(channels, (list, tuple)) else None
    of_maps = {}
    if maps['backbone.out_indices'] == maps['neck.in_channels'] is not None:
        of_maps = {'neck.in_channels': list(channels), 'backbone': _channels(model['backbone'])}
    rows = {
        'feature levels': {key: given.get(key, default) for key, default in _LEVELS.items()},
        'width': widths,
        'number of feature maps': maps,
        'channels of the feature maps': of_maps,
    }
    if lines := [line for what, values in rows.items() if (line := _unequal(what, values))]:
        return '\n'.join(['keys of the model have to be equal, and are not.', *lines])
    return None


def _unequal(what: str, values: Mapping[str, object]) -> str | None:
    """``  width: 256 in model.neck.out_channels; 128 in …``, or None; a value of None is any."""
    keys = defaultdict(list)
    for key, value in values.items():
        if value is not None:
            keys[str(value)].append(f'model.{key}')
    said = '; '.join(f'{value} in {", ".join(names)}' for value, names in keys.items())
    return f'  {what}: {said}' if len(keys) > 1 else None


def _channels(backbone: Mapping) -> list[int] | None:
    """Channels of each of the maps of a Swin Transformer or ResNet; None for others."""
    kind, indices = type_name(backbone), backbone['out_indices']
    if kind in ('SwinTransformer', 'FusedSwinTransformer'):
        return [backbone.get('embed_dims', 96) * 2**index for index in indices]
    if kind in ('ResNet', 'ResNeXt'):
        first = backbone.get('base_channels', 64) * (4 if backbone.get('depth', 50) >= 50 else 1)
        return [first * 2**index for index in indices]
    return None
