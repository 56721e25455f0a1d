"""Makes a resumed run the continuation of the one that was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, repeat

import mmengine
from mmdet.registry import DATA_SAMPLERS, HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.utils import digit_version
from torch.utils.data import DataLoader

from ...utils.randomness import derived_seed, seed_generators


@HOOKS.register_module()
class ResumeHook(Hook):
    """Every step draws from a seed of its own, and a resumed run takes up the data where it was.

    A checkpoint of mmengine holds no state of any generator. Here none is needed: before each
    step the generators are seeded from the run's seed, the rank and the iteration, so exemplars,
    denoising noise and drop paths are those of the uninterrupted run (ours). mmengine's loops
    begin an interrupted epoch anew, or load all that was trained on before; with a
    ``ResumableBatchSampler`` for ``train_dataloader.batch_sampler`` they continue at once.

    Put it into ``default_hooks``. With another batch sampler only the steps are seeded.
    ``randomness.diff_rank_seed`` is not resumable: the order of the data hangs on each rank's
    draws.
    """

    # the sampler of a resumed run must know its epoch, which DistSamplerSeedHook (NORMAL) sets
    priority = 'BELOW_NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Note whether this is a resumed run."""
        self._resumes = runner.iter > 0

    def before_train_epoch(self, runner: Runner) -> None:
        """Once, in a resumed run: continue the data."""
        resumes, self._resumes = self._resumes, False
        if not resumes:
            return
        loader = runner.train_loop.dataloader
        in_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
        done = runner.iter if in_iterations else runner.iter - runner.epoch * len(loader)
        if not hasattr(loader.batch_sampler, 'skip'):
            if done:
                print_log(
                    'train_dataloader.batch_sampler is no ResumableBatchSampler: the data of this '
                    'resumed run are not those that the stopped one would have gone on with.',
                    logger='current',
                )
            return
        self._renew_sampler(runner, loader)
        if in_iterations:
            # from mmengine 0.10.3 on, the loop asks for all batches that are done, to throw them
            # away, but not where it has `skip_iter`
            goes_on = digit_version(mmengine.__version__) < digit_version('0.10.3')
            goes_on |= hasattr(runner.train_loop.dataloader_iterator, 'skip_iter')
            blanks = repeat(None, 0 if goes_on else done)
            batches = _endless(loader, done)
            runner.train_loop.dataloader_iterator = ContinuedBatches(blanks, batches)
        elif 0 < done <= len(loader):
            # all of them where the checkpoint was saved just before the epoch's end was dealt with
            loader.batch_sampler.skip = done
            print_log(f'Epoch {runner.epoch + 1} continues after {done} batches', logger='current')

    def _renew_sampler(self, runner: Runner, loader: DataLoader) -> None:
        """A sampler of the stopped run's seed; loops are built before the seed is read."""
        cfg = runner.cfg.get('train_dataloader')
        per_rank = (runner.cfg.get('randomness') or {}).get('diff_rank_seed', False)
        if isinstance(cfg, dict) and isinstance(cfg.get('sampler'), dict) and not per_rank:
            loader.batch_sampler.sampler = DATA_SAMPLERS.build(
                cfg['sampler'], default_args=dict(dataset=loader.dataset, seed=runner.seed)
            )
            _set_epoch(loader, runner.epoch)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Seed the generators for this step."""
        seed_generators(derived_seed(runner.seed, get_rank(), runner.iter))


class ContinuedBatches(chain):
    """Stands in for an iteration-based loop's endless iterator in a resumed run."""

    def skip_iter(self, num_iters: int) -> None:
        """What the loop of onedl-mmengine calls in place of asking for batches: all is done."""


def _endless(loader: DataLoader, done: int) -> Iterator:
    # an endless sampler is one pass for ever; its loader's length means nothing
    first = 0 if _is_endless(loader) else done // len(loader)
    loader.batch_sampler.skip = done - first * len(loader)
    for passes in count(first):
        _set_epoch(loader, passes)
        yield from loader


def _is_endless(loader: DataLoader) -> bool:
    """Whether the sampler never ends, as ``InfiniteSampler`` and its likes, which know no epoch."""
    return not hasattr(loader.batch_sampler.sampler, 'epoch')


def _set_epoch(loader: DataLoader, epoch: int) -> None:
    if not _is_endless(loader):
        loader.batch_sampler.sampler.set_epoch(epoch)
