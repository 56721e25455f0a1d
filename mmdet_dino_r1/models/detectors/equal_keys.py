"""Keys of a ``DINOR1`` that have to be equal, as they set sizes of parts that meet.

Elsewhere the mistake shows as a tensor of a wrong shape, which names no key. Names: model = the
config of the detector, its parts as dicts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

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
_PROMPT_ENCODER = dict(num_levels=4, embed_dims=256)  # not set in a VisualPromptEncoder


def explain_unequal(model: Mapping) -> str | None:
    """All keys of a model that have to be equal and are not, with their values; None if all are."""
    encoder = model.get('prompt_encoder') or {}
    if encoder.get('type') == 'VisualPromptEncoder':
        model = dict(model, prompt_encoder=_PROMPT_ENCODER | dict(encoder))
    widths = {key: _value(model, key, default) for key, default in _WIDTHS.items()}
    half = _value(model, 'positional_encoding.num_feats', None)
    widths['positional_encoding.num_feats * 2'] = None if half is None else 2 * half
    backbone = model.get('backbone') or {}
    given, taken = backbone.get('out_indices'), _value(model, 'neck.in_channels', None)
    maps = {'backbone.out_indices': given and len(given)}
    maps['neck.in_channels'] = len(taken) if isinstance(taken, (list, tuple)) else None
    levels = {key: _value(model, key, default) for key, default in _LEVELS.items()}
    if levels['neck.num_outs'] is None and _value(model, 'neck.type', None) == 'ChannelMapper':
        levels['neck.num_outs'] = maps['neck.in_channels']
    channels = {}
    if maps['backbone.out_indices'] == maps['neck.in_channels'] is not None:
        channels = {'neck.in_channels': list(taken), 'backbone': _channels(backbone)}
    rows = {
        'feature levels': levels,
        'width': widths,
        'number of feature maps': maps,
        'channels of the feature maps': channels,
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


def _value(model: Mapping, key: str, default: object) -> object:
    """What is set at a dotted key, or the default."""
    node = model
    for name in key.split('.'):
        if not isinstance(node, Mapping) or name not in node:
            return default
        node = node[name]
    return node


def _channels(backbone: Mapping) -> list[int] | None:
    """Channels of each of the maps of a Swin Transformer or ResNet; None for others."""
    kind, indices = str(backbone.get('type')), backbone['out_indices']
    if kind in ('SwinTransformer', 'FusedSwinTransformer'):
        return [backbone.get('embed_dims', 96) * 2**index for index in indices]
    if kind in ('ResNet', 'ResNeXt'):
        first = backbone.get('base_channels', 64) * (4 if backbone.get('depth', 50) >= 50 else 1)
        return [first * 2**index for index in indices]
    return None
