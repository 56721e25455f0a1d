"""Standard AP and Fixed AP on LVIS, from one stream of detections."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmdet.registry import METRICS
from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from ..structures.coco_file import check_classes
from ..utils.near_names import near_names

# A detection; `position` is its place among those of its image, `box` is x1, y1, x2, y2 in pixels.
DETECTION = np.dtype(
    [('image', 'i8'), ('position', 'i4'), ('label', 'i4'), ('score', 'f4'), ('box', 'f4', 4)]
)

_INSTALL = (
    'Run `pip install --no-deps lvis`: without --no-deps it brings opencv-python, which lies over '
    'opencv-python-headless and asks for a newer NumPy.'
)


@METRICS.register_module()
class LVISBoxMetric(BaseMetric):
    """Box AP on LVIS as lvis-api computes it, and Fixed AP beside it.

    Standard AP keeps the best detections of each image. Fixed AP (Dave et al., arXiv 2102.01066)
    keeps the best of each category over the whole set, so that categories do not compete. Keys:
    ``lvis/bbox_AP`` and ``lvis_fixed_ap/AP``, each also with 50, 75, s, m, l, r, c and f, in
    [0, 1] and not rounded; -1 where the file has no such boxes.

    mmdet's ``LVISMetric`` rounds to three decimals; its ``LVISFixedAPMetric`` counts images twice
    that a distributed sampler padded. Here the result depends on neither the order of images nor
    the number of processes: equal scores are ordered by image id, then by the place in the image.
    Labels stand for categories by class name, and only the dataset's classes are evaluated.

    Args:
        ann_file: LVIS annotation file.
        fixed_ap_dets: Detections kept per category for Fixed AP.
        dets_per_image: Detections kept per image for standard AP.
        outfile_prefix: Where the two lists of detections go, in the format of lvis-api:
            ``<prefix>.bbox.json`` and ``<prefix>.fixed.bbox.json``. ``None`` writes nothing.
        collect_device: ``cpu`` or ``gpu``, over which processes exchange detections.
        prefix: Stands before the keys.
        backend_args: Of the file backend that reads ``ann_file``.

    Raises:
        FileNotFoundError: If there is no ``ann_file``.
        ImportError: If lvis is not installed.
        ValueError: If it is not an LVIS file.
    """

    default_prefix = 'lvis'
    # above so many, detections that can no longer count are dropped (36 bytes each)
    max_held = 4_000_000

    def __init__(
        self,
        ann_file: str,
        fixed_ap_dets: int = 10000,
        dets_per_image: int = 300,
        outfile_prefix: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        backend_args: dict | None = None,
    ) -> None:
        try:
            from .lvis_api import GroundTruth
        except ModuleNotFoundError as error:
            raise ImportError(f'LVISBoxMetric: {error}. {_INSTALL}') from error
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.prefix = prefix  # else none: the keys of the two APs have their own
        self.ann_file = ann_file
        self.fixed_ap_dets = fixed_ap_dets
        self.dets_per_image = dets_per_image
        self.outfile_prefix = outfile_prefix
        with get_local_path(ann_file, backend_args=backend_args) as path:
            self._truth = GroundTruth(path)
        self._limit = self.max_held
        self._held = 0

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        """Set the tested dataset's meta information; ValueError if the file lacks a class."""
        self._dataset_meta = dataset_meta
        # here, not after hours of testing
        self._category_ids = self._ids_of(dataset_meta['classes'])

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch; ValueError for an image not in the annotation file.

        ``pred_instances`` of a sample have ``bboxes`` ``(n, 4)`` as x1, y1, x2, y2 in pixels of the
        original image, ``scores`` and ``labels`` ``(n, )``.
        """
        for sample in data_samples:
            image, pred = sample['img_id'], sample['pred_instances']
            if image not in self._truth.imgs:
                raise ValueError(
                    f'Image {image} is not in {self.ann_file}; give the metric the annotation '
                    'file of the tested dataset.'
                )
            found = np.empty(len(pred['scores']), DETECTION)
            found['image'] = image
            found['position'] = np.arange(len(found))
            for field, key in (('label', 'labels'), ('score', 'scores'), ('box', 'bboxes')):
                found[field] = pred[key].detach().cpu().numpy()
            self.results.append((np.array([image]), found))
            self._held += len(found)
        if self._held > self._limit:
            images, found = join_parts(self.results)
            kept = found[self._per_image(found) | self._per_category(found)]
            self.results[:] = [(images, kept)]
            self._held = len(kept)
            self._limit = max(self.max_held, 2 * self._held)

    def evaluate(self, size: int) -> dict:
        """Metrics of what all processes kept; an image that a sampler repeats counts once."""
        self.results[:] = [join_parts(self.results)]
        self._limit, self._held = self.max_held, 0
        # one part from each process
        return super().evaluate(get_world_size())

    def compute_metrics(self, results: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """Both APs, in [0, 1] or -1, of parts as for :func:`join_parts`, of shape ``(n, )``."""
        images, found = join_parts(results)
        fixed = self._per_category(found)
        self._report(len(images), found[fixed])
        metrics = {}
        for name, suffix, kept in (
            ('lvis/bbox_', '', self._per_image(found)),
            ('lvis_fixed_ap/', '.fixed', fixed),
        ):
            if self.outfile_prefix is not None:
                path = Path(f'{self.outfile_prefix}{suffix}.bbox.json')
                _dump(_annotations(found[kept], self._category_ids), path)
            values = self._average_precision(found[kept])
            metrics |= {name + key: value for key, value in values.items()}
            line = ', '.join(f'{name}{key} {value:.4f}' for key, value in values.items())
            print_log(line, logger='current')
        return metrics

    def _per_image(self, found: np.ndarray) -> np.ndarray:
        return best_of_each(found, 'image', self.dets_per_image)

    def _per_category(self, found: np.ndarray) -> np.ndarray:
        return best_of_each(found, 'label', self.fixed_ap_dets)

    def _ids_of(self, classes: Sequence[str]) -> np.ndarray:
        """The file's category id of each class, ``(num_classes, )``."""
        categories = sorted(self._truth.dataset['categories'], key=lambda cat: cat['id'])
        id_of = {cat['name']: cat['id'] for cat in categories}
        unclaimed = id_of.keys() - set(classes)
        for label, name in enumerate(classes):
            if name not in id_of and len(classes) == len(categories):
                # mmdet spells `speaker_(stereo_equipment)` right, LVIS does not
                other = categories[label]['name']
                if other in unclaimed and near_names(name, [other], cutoff=0.9):
                    print_log(f'Class {name!r} is {other!r} in {self.ann_file}.', 'current')
                    id_of[name] = id_of[other]
        check_classes(classes, list(id_of), self.ann_file)
        return np.array([id_of[name] for name in classes])

    def _average_precision(self, found: np.ndarray) -> dict[str, float]:
        """What lvis-api finds for these detections."""
        from .lvis_api import Detections, Evaluation

        # only pairs of image and category that the file judges count, a small part of all
        judged = self._truth.judged_pairs()
        width = int(max(self._category_ids.max(), judged[:, 1].max(initial=0))) + 1
        pairs = found['image'] * width + self._category_ids[found['label']]
        counted = found[np.isin(pairs, judged @ [width, 1])]
        detections = list(_annotations(counted, self._category_ids))
        evaluation = Evaluation(self._truth, Detections(self._truth, detections), 'bbox')
        evaluation.params.cat_ids = sorted(self._category_ids.tolist())
        evaluation.run()
        results = evaluation.get_results()
        return {key: float(value) for key, value in results.items() if key.startswith('AP')}

    def _report(self, images: int, fixed: np.ndarray) -> None:
        counts = np.bincount(fixed['label'], minlength=len(self._category_ids))
        few = int((counts < self.fixed_ap_dets).sum())
        print_log(
            f'LVIS: {images} of {len(self._truth.imgs)} images tested. {few} of {len(counts)} '
            f'categories have fewer than the {self.fixed_ap_dets} detections that Fixed AP '
            f'keeps of each; {len(fixed) / max(images, 1):.1f} detections per image enter it.',
            logger='current',
        )
        if not len(fixed):
            print_log('No image has a detection, so AP is 0.', 'current', logging.WARNING)


def join_parts(
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Join parts of a test set, each image once: of one in several parts the first counts.

    A part is the ids of its images, int ``(num_images, )`` without repetition, and their
    ``DETECTION`` records. The whole has sorted ids, and records ordered by image, then position.
    """
    if not parts:
        return np.empty(0, np.int64), np.empty(0, DETECTION)
    ids, records = zip(*parts, strict=True)
    images, first = np.unique(np.concatenate(ids), return_index=True)
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in ids])[first]
    found = np.concatenate(records)
    part = np.repeat(np.arange(len(parts)), [len(part) for part in records])
    found = found[owner[np.searchsorted(images, found['image'])] == part]
    return images, found[np.lexsort((found['position'], found['image']))]


def best_of_each(found: np.ndarray, group: str, count: int) -> np.ndarray:
    """Which records, bool ``(n, )``, are among the ``count`` best of their image or label.

    They are ordered by image, then position; of equal scores the first counts as the better.
    """
    order = np.lexsort((-found['score'], found[group]))  # stable
    groups = found[group][order]
    place = np.arange(len(found)) - np.searchsorted(groups, groups)  # within its group
    kept = np.zeros(len(found), bool)
    kept[order[place < count]] = True
    return kept


def _annotations(found: np.ndarray, category_ids: np.ndarray) -> Iterator[dict]:
    """Records as lvis-api has them, boxes as x, y, width, height."""
    for start in range(0, len(found), 100_000):  # Python's lists need five times the memory
        part = found[start : start + 100_000]
        boxes = part['box'].astype(float)
        boxes[:, 2:] -= boxes[:, :2]
        columns = part['image'], category_ids[part['label']], boxes, part['score']
        for values in zip(*(column.tolist() for column in columns), strict=True):
            yield dict(zip(('image_id', 'category_id', 'bbox', 'score'), values, strict=True))


def _dump(annotations: Iterator[dict], path: Path) -> None:
    """Write a JSON list, entry by entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w') as file:
        file.write('[')
        for index, annotation in enumerate(annotations):
            file.write((',\n' if index else '\n') + json.dumps(annotation))
        file.write('\n]\n')
    print_log(f'Detections written to {path}.', logger='current')
