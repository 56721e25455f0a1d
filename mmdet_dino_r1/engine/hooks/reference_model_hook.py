"""When GRQO starts, and when its reference model is refreshed."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...utils.wrappers import unwrapped
from ..sharding import refuse_sharded_reference


@HOOKS.register_module()
class ReferenceModelHook(Hook):
    """Refresh the reference model at intervals; hold GRQO back until it is time.

    Works in epoch- and iteration-based loops; each rank copies its own replica of the policy. Put
    it into ``default_hooks``. A checkpoint saved within an interval carries the snapshot
    (``reference_model``), with which a resumed run goes on.

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
        self._carried: dict | None = None

    def before_train(self, runner: Runner) -> None:
        """Learn what an epoch is here; take up the snapshot of a resumed run."""
        policy = unwrapped(runner.model)
        refuse_sharded_reference(runner.model, policy.bbox_head.loss_grqo)
        self._per_epoch = len(runner.train_dataloader)
        # Without ResumeHook a resumed epoch-based loop begins its epoch anew while the iterations
        # count on, so there the iterations do not tell which epoch it is.
        self._in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._was_active = None
        carried, self._carried = self._carried, None
        self._restored = carried is not None and runner.iter > 0  # not if merely warm-started
        if self._restored:
            policy.reference_model.restore(policy, carried)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Switch GRQO on when its time has come, and refresh the reference when due."""
        policy = unwrapped(runner.model)
        loss_grqo = policy.bbox_head.loss_grqo
        if loss_grqo is None:
            return
        epoch = runner.epoch if self._in_epochs else runner.iter // self._per_epoch
        loss_grqo.active = epoch >= self.start_epoch and runner.iter >= self.start_iter
        if loss_grqo.active and self._was_active is False:
            print_log(f'GRQO starts at iteration {runner.iter}', logger='current')
        self._was_active = loss_grqo.active
        # the first batch of a resumed run may lie within its epoch
        within = self._restored and runner.iter != runner.epoch * self._per_epoch
        starts_epoch = batch_idx == 0 and not within
        self._restored = False
        due = self._is_due(runner.epoch, runner.iter, starts_epoch)
        if loss_grqo.needs_reference and (due or not policy.reference_model.is_ready):
            policy.reference_model.refresh(policy)

    def _is_due(self, epoch: int, iteration: int, starts_epoch: bool) -> bool:
        if not self.by_epoch:
            return iteration % self.interval == 0
        if self._in_epochs:
            return starts_epoch and epoch % self.interval == 0
        return iteration % (self.interval * self._per_epoch) == 0

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the snapshot where a resumed run's first step would not take a new one."""
        reference, meta = unwrapped(runner.model).reference_model, checkpoint['meta']
        starts_epoch = meta['iter'] == meta['epoch'] * len(runner.train_dataloader)
        if reference.is_ready and not self._is_due(meta['epoch'], meta['iter'], starts_epoch):
            checkpoint['reference_model'] = reference.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep a snapshot that the checkpoint carries until the training starts."""
        self._carried = checkpoint.get('reference_model')
