"""When GRQO starts, and when its reference model is refreshed."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


@HOOKS.register_module()
class ReferenceModelHook(Hook):
    """Refresh the reference model at intervals; hold GRQO back until it is time.

    Works in epoch- and iteration-based loops, in one process or many (each rank copies its own
    replica of the policy, and replicas are equal). Put it into ``default_hooks``. A run that is
    resumed in the middle of an interval takes the snapshot from the resumed weights.

    Args:
        interval: refresh every this many epochs (or iterations). The paper: every epoch.
        by_epoch: whether ``interval`` counts epochs. An iteration-based loop counts an epoch
            as one pass over the training set.
        start_epoch: epochs of supervised training before GRQO begins ("1+5" in pre-training: 1).
        start_iter: the same in iterations; the later of the two counts.

    Raises:
        ValueError: an interval below 1.
    """

    priority = 'NORMAL'

    def __init__(
        self, interval: int = 1, by_epoch: bool = True, start_epoch: int = 0, start_iter: int = 0
    ) -> None:
        if interval < 1:
            raise ValueError(f'ReferenceModelHook.interval must be at least 1, got {interval}')
        self.interval = interval
        self.by_epoch = by_epoch
        self.start_epoch = start_epoch
        self.start_iter = start_iter

    def before_train(self, runner: Runner) -> None:
        """Turn epochs into iterations, now that the length of an epoch is known."""
        per_epoch = len(runner.train_dataloader)
        self._start = max(self.start_iter, self.start_epoch * per_epoch)
        self._every = self.interval * (per_epoch if self.by_epoch else 1)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Switch GRQO on when its time has come, and refresh the reference when due."""
        policy = runner.model.module if is_model_wrapper(runner.model) else runner.model
        loss_grqo = policy.bbox_head.loss_grqo
        if loss_grqo is None:
            return
        started = runner.iter >= self._start
        if started and runner.iter == self._start and self._start > 0:
            print_log(f'GRQO starts at iteration {runner.iter}', logger='current')
        loss_grqo.active = started
        due = runner.iter % self._every == 0 or not policy.reference_model.is_ready
        if loss_grqo.needs_reference and due:
            policy.reference_model.refresh(policy)
