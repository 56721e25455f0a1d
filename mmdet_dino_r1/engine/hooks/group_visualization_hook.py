"""Pictures of detections on several test sets."""

from __future__ import annotations

from collections.abc import Sequence
from os import path as osp

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.runner import Runner
from torch.utils.data import Dataset

from ...config.tested_sets import members_of


@HOOKS.register_module()
class GroupVisualizationHook(DetVisualizationHook):
    """mmdet's hook, also for a ``DatasetGroup``: ``--show-dir`` and pictures of validations.

    Each sample is drawn with the class names and colours of its own dataset, and ``--show-dir``
    has a folder for each dataset. On a single dataset it is mmdet's hook. Arguments are those of
    ``DetVisualizationHook``.
    """

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        """Draw the first sample of every ``interval``-th batch."""
        if self.draw:
            self._use_classes_of(outputs[0], runner.val_dataloader.dataset)
        super().after_val_iter(runner, batch_idx, data_batch, outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        """Draw all samples of the batch."""
        if not self.draw:
            return
        root = self.test_out_dir
        for sample in outputs:
            self._use_classes_of(sample, runner.test_dataloader.dataset)
            if root is not None:
                self.test_out_dir = osp.join(root, sample.get('dataset_name', ''))
            super().after_test_iter(runner, batch_idx, data_batch, [sample])
        self.test_out_dir = root  # mmdet's hook makes it absolute, which must not add up

    def _use_classes_of(self, sample: DetDataSample, dataset: Dataset) -> None:
        metas = {name: member.metainfo for name, member, _ in members_of(dataset)}
        if (name := sample.get('dataset_name')) in metas:
            self._visualizer.dataset_meta = metas[name]
