"""The wrappers a model trains in, and models sharded over processes (ours)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

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


def unwrapped(model: nn.Module) -> nn.Module:
    """The detector inside a DDP or test-time-augmentation wrapper, or itself."""
    return getattr(model, 'module', model)


def whole_weights(model: nn.Module) -> AbstractContextManager:
    """A context in which parts of a sharded model can be called one by one; else does nothing.

    FSDP puts the weights together only while its own ``forward`` runs. Encoding exemplars and
    reading the weights go past it. Every process must enter the context.

    Args:
        model: as the runner holds it; changes to its weights within the context are lost.
    """
    from torch.distributed import is_available

    if not is_available():
        return nullcontext()
    from torch.distributed.fsdp import FullyShardedDataParallel

    if not isinstance(model, FullyShardedDataParallel):
        return nullcontext()
    return FullyShardedDataParallel.summon_full_params(model, writeback=False)


def refuse_sharded_reference(model: nn.Module, loss_grqo: nn.Module | None) -> None:
    """Refuse GRQO's reference model where the policy is sharded.

    Args:
        model: as the runner holds it, wrapped.
        loss_grqo: of the detector's head, a ``GRQOLoss`` or None.

    Raises:
        ValueError: the loss has a KL term and the wrapper shards.
    """
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
