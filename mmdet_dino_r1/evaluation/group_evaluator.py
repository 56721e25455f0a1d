"""A number for each dataset of a group, and their mean."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from mmdet.registry import EVALUATOR, METRICS
from mmengine.dist import broadcast_object_list, collect_results, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from terminaltables import AsciiTable

MEAN = 'mean'
_ABSENT = -1  # COCO's value where a set has no such boxes
_HEADLINES = ('mAP', 'mAP_50')  # how keys of the table's columns end


@dataclass
class _Member:
    """A dataset of the group, its metric, and the image of each of the metric's results."""

    meta: dict
    metric: BaseMetric
    img_ids: list = field(default_factory=list)


@EVALUATOR.register_module()
class DatasetGroupEvaluator(Evaluator):
    """Evaluates each dataset of a group by a metric of its own, and averages.

    Made for ``ODinW``, whose number is the arithmetic mean over 13 or 35 datasets::

        test_evaluator = dict(
            type='DatasetGroupEvaluator', metrics=dict(type='CocoJsonMetric', metric='bbox'))

    The tested dataset tells what the group is, ``metainfo = dict(datasets=[dict(name=...,
    ann_file=..., classes=...), ...])``, and each of its samples carries the meta key
    ``dataset_name``. Keys are ``<name>/coco/bbox_mAP`` and so on, and ``mean/coco/bbox_mAP`` for
    all keys that every member has. Values of -1, COCO's word for "no such boxes", stay out of
    the mean of their key; a member without any detection counts as 0.

    mmdet's ``MultiDatasetsEvaluator`` has no mean, loses the file of ``--out`` and keeps all
    samples in each metric. Here a sample goes to its own dataset's metric alone, and metrics that
    are appended to ``metrics``, as by ``--out``, get all.

    Args:
        metrics: Config of a metric that keeps one result per image, such as ``CocoJsonMetric``,
            without ``ann_file``. It is built for each member with that member's file; an
            ``outfile_prefix`` is continued by ``.<name>``.

    Raises:
        TypeError: ``metrics`` is no dict.
    """

    def __init__(self, metrics: dict) -> None:
        if not isinstance(metrics, dict):
            raise TypeError(
                'DatasetGroupEvaluator takes the config of one metric, which it builds for each '
                f'dataset, got {type(metrics).__name__}.'
            )
        super().__init__(metrics=[])
        self._template = metrics
        self._members: dict[str, _Member] = {}

    @Evaluator.dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        """Build the metrics of the members; ValueError for no group, a name twice or 'mean'."""
        Evaluator.dataset_meta.fset(self, dataset_meta)
        datasets = dataset_meta.get('datasets') if isinstance(dataset_meta, dict) else None
        if not datasets:
            raise ValueError(
                'DatasetGroupEvaluator tests a dataset of type DatasetGroup; this one has no '
                "'datasets' in its metainfo."
            )
        self._members = {}
        for meta in datasets:
            name = meta['name']
            if name in self._members or name == MEAN:
                raise ValueError(f'A group cannot name a dataset {name!r}: that is taken.')
            cfg = dict(self._template, ann_file=meta['ann_file'])
            if cfg.get('outfile_prefix') is not None:
                cfg['outfile_prefix'] += f'.{name}'
            metric = METRICS.build(cfg)
            metric.dataset_meta = meta
            self._members[name] = _Member(meta, metric)

    def process(
        self, data_samples: Sequence[BaseDataElement | dict], data_batch: Any | None = None
    ) -> None:
        """Give each sample to the metric of its dataset, and all to the other metrics.

        Raises:
            TypeError: The metric does not keep one result per image.
            ValueError: A sample is of no dataset of the group.
        """
        samples = [
            sample.to_dict() if isinstance(sample, BaseDataElement) else sample
            for sample in data_samples
        ]
        for sample in samples:
            member = self._members.get(name := sample.get('dataset_name'))
            if member is None:
                raise ValueError(
                    "A sample has no 'dataset_name'; the tested dataset must be a DatasetGroup."
                    if name is None
                    else f'A sample is of dataset {name!r}, the group has '
                    f'{", ".join(self._members)}.'
                )
            member.metric.process(data_batch, [sample])
            member.img_ids.append(sample['img_id'])
            if len(member.metric.results) != len(member.img_ids):
                raise TypeError(
                    f'{type(member.metric).__name__} does not keep one result per image, so '
                    'DatasetGroupEvaluator cannot tell its results apart.'
                )
        super().process(samples, data_batch)

    def evaluate(self, size: int) -> dict:
        """Metrics of each member, their mean and whole-run ones, the same in every process."""
        found = [self._evaluate_members()]
        broadcast_object_list(found)
        return found[0] | super().evaluate(size)

    def _evaluate_members(self) -> dict | None:
        """Metrics of the members and their mean; None but in the main process."""
        by_member = {}
        for name, member in self._members.items():
            pairs = list(zip(member.img_ids, member.metric.results, strict=True))
            # one part of each process, so that nothing is cut off
            parts = collect_results([pairs], get_world_size(), member.metric.collect_device)
            member.img_ids.clear()
            member.metric.results.clear()
            if not is_main_process():
                continue
            by_image = {}
            for img_id, result in chain(*parts):
                by_image.setdefault(img_id, result)  # samplers pad with images of other ranks
            if by_image:
                values = member.metric.compute_metrics(list(by_image.values()))
                prefix = f'{member.metric.prefix}/' if member.metric.prefix else ''
                by_member[name] = {prefix + key: value for key, value in values.items()}
        return self._summarize(by_member) if is_main_process() else None

    def _summarize(self, by_member: dict[str, dict[str, float]]) -> dict[str, float]:
        """Log the table and join all values."""
        for name, values in by_member.items():
            if not values:  # CocoMetric gives up where there is no detection
                print_log(f'{name}: no detections, counts as 0.', 'current', logging.WARNING)
                others = [other for other in by_member.values() if other]
                by_member[name] = dict.fromkeys(others[0], 0.0) if others else {}
        mean = mean_over_datasets(list(by_member.values()))
        print_log(self._table(by_member, mean), logger='current')
        metrics = {f'{MEAN}/{key}': value for key, value in mean.items()}
        for name, values in by_member.items():
            metrics |= {f'{name}/{key}': value for key, value in values.items()}
        return metrics

    def _table(self, by_member: dict[str, dict[str, float]], mean: dict[str, float]) -> str:
        """One line for each dataset, one for the mean, and what was left out."""
        keys = [key for key in mean if key.endswith(_HEADLINES)] or list(mean)[:2]
        rows = [['dataset', 'images', 'classes', *(key.rpartition('/')[2] for key in keys)]]
        for name, values in by_member.items():
            meta = self._members[name].meta
            rows.append([name, meta.get('size', ''), len(meta['classes'])])
            rows[-1] += [_shown(values[key]) for key in keys]
        rows.append([MEAN, '', '', *(_shown(mean[key]) for key in keys)])
        table = AsciiTable(rows)
        table.inner_footing_row_border = True
        # without keys no member has detections, and each counts as 0
        counted = [n for n, values in by_member.items() if not keys or values[keys[0]] != _ABSENT]
        skipped = list(self.dataset_meta.get('skipped') or ())
        skipped += [name for name in self._members if name not in counted]
        total = len(counted) + len(skipped)
        text = f'\n{table.table}\nmean over {len(counted)} of {total} datasets'
        return text + (f'; left out: {", ".join(skipped)}' if skipped else '')


def mean_over_datasets(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each key that all datasets have, over those whose value is not -1; else -1."""
    mean = {}
    for key in metrics[0] if metrics else ():
        if all(key in other for other in metrics):
            values = [other[key] for other in metrics if other[key] != _ABSENT]
            mean[key] = sum(values) / len(values) if values else _ABSENT
    return mean


def _shown(value: float) -> str:
    return '-' if value == _ABSENT else f'{value:.3f}'
