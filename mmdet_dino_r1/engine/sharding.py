"""What mmengine's sharding over processes allows (ours)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

# What shards, under the config key that names it: mmengine's strategies, and the wrapper of each.
_STRATEGIES = ('FSDPStrategy', 'DeepSpeedStrategy', 'ColossalAIStrategy')
_WRAPPERS = {
    'MMFullyShardedDataParallel': 'FSDPStrategy',
    'MMDeepSpeedEngineWrapper': 'DeepSpeedStrategy',
    'ColossalAIModelWrapper': 'ColossalAIStrategy',
}
_INSTEAD = (
    'Use the shipped MMDistributedDataParallel, and save memory with --amp, model.encoder.num_cp=6 '
    'and model.backbone.with_cp=True'
)


def refuse_sharded_reference(model: nn.Module, loss_grqo: nn.Module | None) -> None:
    """Refuse GRQO's reference model where the policy is sharded.

    Args:
        model: as the runner holds it, wrapped.
        loss_grqo: of the detector's head, a ``GRQOLoss`` or None.

    Raises:
        ValueError: the loss has a KL term and the wrapper shards.
    """
    strategy = _WRAPPERS.get(type(model).__name__)
    if strategy is not None and loss_grqo is not None and loss_grqo.kl_weight > 0:
        raise ValueError(_no_reference(strategy))


def explain_sharding(cfg: Mapping) -> str | None:
    """What of a config's sharding cannot work, with its remedy; None if nothing is wrong.

    Args:
        cfg: the config of a training.
    """
    wrapper = _type_of(cfg.get('model_wrapper_cfg'))
    strategy = _type_of(cfg.get('strategy'))
    if wrapper in _WRAPPERS:
        return (
            f"model_wrapper_cfg.type='{wrapper}': mmengine's Runner initialises the weights after "
            f'it has wrapped the model, which fails for shards. {_INSTEAD}; or train VIS-GDINO '
            f"with runner_type='FlexibleRunner', strategy=dict(type='{_WRAPPERS[wrapper]}')."
        )
    if strategy is None:
        return None
    if _type_of(dict(type=cfg.get('runner_type', 'Runner'))) != 'FlexibleRunner':
        return (
            f"strategy.type='{strategy}' is read by runner_type='FlexibleRunner' alone; the "
            'Runner would train without it. Set runner_type, or leave strategy out.'
        )
    grqo = cfg.get('model', {}).get('bbox_head', {}).get('loss_grqo')
    if strategy in _STRATEGIES and grqo is not None and grqo.get('kl_weight', 1) > 0:
        return _no_reference(strategy)
    return None


def _no_reference(strategy: str) -> str:
    return (
        f'{strategy} shards the policy over the processes, and the reference model of GRQO is a '
        f'whole copy of it, which cannot be taken of a shard. {_INSTEAD}; or train without the KL '
        'term, which needs no reference: model.bbox_head.loss_grqo.kl_weight=0.'
    )


def _type_of(cfg: Mapping | None) -> str | None:
    """The name of a config's ``type``, be it a class or a name with a scope."""
    kind = (cfg or {}).get('type')
    name = getattr(kind, '__name__', kind)
    return None if name is None else name.rpartition('.')[2]
