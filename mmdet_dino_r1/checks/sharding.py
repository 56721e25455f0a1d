"""What of a config's sharding over processes cannot work.

Names: cfg, args, stage as of all checks (``preflight.py``).
"""

from __future__ import annotations

import argparse

from mmengine.config import Config

from ..engine.sharding import INSTEAD_OF_SHARDS, STRATEGY_OF_WRAPPER, no_reference_message
from .config_tree import type_name


def explain_sharding(cfg: Config, args: argparse.Namespace, stage: str) -> str | None:
    """What a training cannot do with its strategy or wrapper, with the remedy; None if it can.

    mmengine's Runner would train without a strategy, and fails with a wrapper that shards.
    """
    if stage != 'train':
        return None
    wrapper, strategy = type_name(cfg.get('model_wrapper_cfg')), type_name(cfg.get('strategy'))
    if wrapper in STRATEGY_OF_WRAPPER:
        return (
            f"model_wrapper_cfg.type='{wrapper}': mmengine's Runner initialises the weights after "
            f'it has wrapped the model, which fails for shards. {INSTEAD_OF_SHARDS}; or train '
            "VIS-GDINO with runner_type='FlexibleRunner', "
            f"strategy=dict(type='{STRATEGY_OF_WRAPPER[wrapper]}')."
        )
    if strategy and type_name(dict(type=cfg.get('runner_type'))) != 'FlexibleRunner':
        return (
            f"strategy.type='{strategy}' is read by runner_type='FlexibleRunner' alone; the "
            'Runner would train without it. Set runner_type, or leave strategy out.'
        )
    grqo = cfg.get('model', {}).get('bbox_head', {}).get('loss_grqo') or dict(kl_weight=0)
    if strategy in STRATEGY_OF_WRAPPER.values() and grqo.get('kl_weight', 1) > 0:
        return no_reference_message(strategy)
    return None
