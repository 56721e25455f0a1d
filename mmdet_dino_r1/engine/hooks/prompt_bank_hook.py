"""Visual prompts for validation and test, encoded by the weights that are evaluated."""

from __future__ import annotations

from mmdet.registry import DATASETS, HOOKS
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import cat

from ...structures import PromptBank


@HOOKS.register_module()
class PromptBankHook(Hook):
    """Protocol Visual-G: per class the mean of N exemplars drawn from a named split.

    Encodes a new bank before every validation and test with the weights in force (after an
    EMA hook has put its own in place) and prints one line: N, seed, split. Put it into
    ``default_hooks``.

    Args:
        bank: where exemplars come from. ``shots`` (N, default 16) and ``seed`` (default 0)
            choose them; ``data_root``, ``ann_file`` and ``data_prefix`` name the split, which
            is the training set's where no ``ann_file`` is given.
    """

    # after EMAHook (NORMAL) has swapped the weights in
    priority = 'LOW'

    def __init__(self, bank: dict | None = None) -> None:
        self.bank = dict(bank or {})
        known = {'shots', 'seed', 'data_root', 'ann_file', 'data_prefix'}
        if unknown := self.bank.keys() - known:
            raise ValueError(
                f'PromptBankHook.bank has unknown keys {sorted(unknown)}; known: {sorted(known)}'
            )

    def before_val_epoch(self, runner: Runner) -> None:
        """Build the bank for the validation set."""
        self._install(runner, runner.cfg.val_dataloader, runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        """Build the bank for the test set."""
        self._install(runner, runner.cfg.test_dataloader, runner.test_dataloader.dataset)

    def _install(self, runner: Runner, loader_cfg: ConfigDict, tested) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        exemplars = DATASETS.build(
            dict(
                type='ExemplarDataset',
                classes=list(tested.metainfo['classes']),
                pipeline=innermost_dataset(loader_cfg.dataset).pipeline,
                **exemplar_source(self.bank, runner.cfg),
            )
        )
        loader = Runner.build_dataloader(
            dict(
                dataset=exemplars,
                batch_size=loader_cfg.batch_size,
                num_workers=loader_cfg.num_workers,
                sampler=dict(type='DefaultSampler', shuffle=False),
            ),
            seed=self.bank.get('seed', 0),
        )
        model.eval()
        encoded = [model.encode_reference_images(batch) for batch in loader]
        embeddings, labels = (cat(parts) for parts in zip(*encoded, strict=True))
        summary = exemplars.summary
        model.set_prompt_bank(
            PromptBank.from_exemplars(exemplars.metainfo['classes'], embeddings, labels, summary)
        )
        print_log(
            'Visual-G prompts: N = {shots} exemplars per class (fewest {fewest}), seed {seed}, '
            'from {ann_file} ({num_images} images, {num_classes} classes)'.format(
                num_classes=len(exemplars.metainfo['classes']), **summary
            ),
            logger='current',
        )


def exemplar_source(bank: dict, cfg: ConfigDict) -> dict:
    """Arguments of ``ExemplarDataset`` that name the split and the choice from it.

    Args:
        bank: argument of :class:`PromptBankHook`.
        cfg: the whole config; its training set is the split where ``bank`` names none.
    """
    if 'ann_file' in bank:
        return bank
    train = innermost_dataset(cfg.train_dataloader.dataset)
    split = {key: train[key] for key in ('data_root', 'ann_file', 'data_prefix') if key in train}
    return split | bank


def innermost_dataset(dataset: ConfigDict) -> ConfigDict:
    """The dataset config inside wrappers such as ``RepeatDataset``."""
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset
