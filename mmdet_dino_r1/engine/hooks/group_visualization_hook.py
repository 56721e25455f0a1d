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
    """mmdet's hook, with a place for each picture, also of a ``DatasetGroup``.

    ``--show-dir`` has the folders that the pictures have below the dataset's ``data_prefix``, so
    that those of one name do not overwrite one another, and of several datasets a folder each.
    Each sample is drawn with the class names and colours of its own dataset. Arguments are those
    of ``DetVisualizationHook``.
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
            member = self._use_classes_of(sample, runner.test_dataloader.dataset)
            if root is not None:
                prefix = getattr(member, 'data_prefix', {}).get('img')
                folder = folder_below(sample.img_path, prefix)
                self.test_out_dir = osp.join(root, sample.get('dataset_name', ''), folder)
            super().after_test_iter(runner, batch_idx, data_batch, [sample])
        self.test_out_dir = root  # mmdet's hook makes it absolute, which must not add up

    def _use_classes_of(self, sample: DetDataSample, dataset: Dataset) -> Dataset:
        """The sample's own dataset, with whose classes the next picture is drawn."""
        members = {name: member for name, member, _ in members_of(dataset)}
        if (name := sample.get('dataset_name')) in members:
            self._visualizer.dataset_meta = members[name].metainfo
            return members[name]
        return next(iter(members.values()))


def folder_below(path: str, prefix: str | None) -> str:
    """Folder of a file as seen from the folder ``prefix``; where it is outside, without '..'."""
    parts = osp.dirname(osp.relpath(path, prefix or '.')).split(osp.sep)
    return osp.join(*(part for part in parts if part != osp.pardir), '')
