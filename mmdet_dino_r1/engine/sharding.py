"""What mmengine's sharding over processes allows (ours)."""

from __future__ import annotations

from torch import nn

# mmengine's wrappers that shard, and the strategy of each.
STRATEGY_OF_WRAPPER = {
    'MMFullyShardedDataParallel': 'FSDPStrategy',
    'MMDeepSpeedEngineWrapper': 'DeepSpeedStrategy',
    'ColossalAIModelWrapper': 'ColossalAIStrategy',
}
INSTEAD_OF_SHARDS = (
    'Use the shipped MMDistributedDataParallel, and save memory with --amp, model.encoder.num_cp=6 '
    'and model.backbone.with_cp=True'
)


def refuse_sharded_reference(model: nn.Module, loss_grqo: nn.Module | None) -> None:
    """ValueError where the runner's model shards the policy and ``loss_grqo`` has a KL term."""
    strategy = STRATEGY_OF_WRAPPER.get(type(model).__name__)
    if strategy is not None and loss_grqo is not None and loss_grqo.kl_weight > 0:
        raise ValueError(no_reference_message(strategy))


def no_reference_message(strategy: str) -> str:
    """Why GRQO's reference model cannot go with a strategy that shards, and what to do instead."""
    return (
        f'{strategy} shards the policy over the processes, and the reference model of GRQO is a '
        f'whole copy of it, which cannot be taken of a shard. {INSTEAD_OF_SHARDS}; or train '
        'without the KL term, which needs no reference: model.bbox_head.loss_grqo.kl_weight=0.'
    )
