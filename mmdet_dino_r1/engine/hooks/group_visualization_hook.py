"""Pictures of detections on several test sets."""

from __future__ import annotations

from collections.abc import Sequence
from os import path as osp

import cv2
import mmcv
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.fileio import get
from mmengine.runner import Runner
from torch.utils.data import Dataset

from ...config.tested_sets import members_of


@HOOKS.register_module()
class GroupVisualizationHook(DetVisualizationHook):
    """mmdet's hook, with a place for each picture, also of a ``DatasetGroup``.

    ``--show-dir`` has the folders that the pictures have below the dataset's ``data_prefix``, so
    that those of one name do not overwrite one another, and of several datasets a folder each.
    A picture whose name OpenCV cannot write, such as one without a suffix, becomes ``name.png``.
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
        for sample in outputs:
            member = self._use_classes_of(sample, runner.test_dataloader.dataset)
            path, name, out_file = sample.img_path, osp.basename(sample.img_path), None
            if self.test_out_dir is not None:
                root = osp.join(runner.work_dir, runner.timestamp, self.test_out_dir)
                folder = folder_below(path, getattr(member, 'data_prefix', {}).get('img'))
                written = name if cv2.haveImageWriter(name) else f'{name}.png'
                out_file = osp.join(root, sample.get('dataset_name', ''), folder, written)
            image = mmcv.imfrombytes(get(path, self.backend_args), channel_order='rgb')
            self._test_index += 1
            self._visualizer.add_datasample(
                name if self.show else 'test_img',
                image,
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                pred_score_thr=self.score_thr,
                out_file=out_file,
                step=self._test_index,
            )

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
