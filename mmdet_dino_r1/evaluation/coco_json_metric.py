"""COCO's AP on any file that ``CocoJsonDataset`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from ..structures.coco_file import CocoIndex, check_classes, read_coco, same_picture

_REMEDY = 'Set ann_file of the evaluator to the annotation file of the tested dataset.'


@METRICS.register_module()
class CocoJsonMetric(CocoMetric):
    """mmdet's ``CocoMetric``, whatever the ids of the file are; equal to it on sound files.

    mmdet takes the classes in the order of the file's categories, and pycocotools can never find
    an annotation of id 0, nor each of several with one id. Here:

    - The file is read as the dataset reads it (``structures/coco_file.py``).
    - Labels stand for categories by class name. Other categories of the file do not count.
    - The images tested are evaluated, be they a part of the file.
    - What has ``ignore`` counts as a crowd; pycocotools passes over that key.
    - ``outfile_prefix`` writes the file's own ids of images and categories.

    Args:
        ann_file: COCO annotation file. With ``format_only=True`` it may lack ``annotations``.
        *args: as for ``CocoMetric``.
        **kwargs: as for ``CocoMetric``; ``sort_categories`` changes nothing.

    Raises:
        FileNotFoundError: there is no ``ann_file``.
        ValueError: it is no COCO file; or, as soon as the dataset or a sample is known, it lacks
            one of the dataset's classes or images, or lists another picture under an image's id.
    """

    # MultiDatasetsEvaluator shows each of its metrics all datasets first
    _is_shared = False

    def __init__(self, ann_file: str, *args, **kwargs) -> None:
        super().__init__(None, *args, **kwargs)
        self.ann_file = ann_file
        with get_local_path(ann_file, backend_args=self.backend_args) as path:
            content = Path(path).read_bytes()
        self._file = read_coco(content, ann_file, annotated=not self.format_only)
        self._coco_api = CocoIndex({})  # filled when the tested images are known
        self._files = {image['id']: image['file_name'] for image in self._file['images']}

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: Any) -> None:
        """Set the tested dataset's meta information; ValueError if the file lacks a class."""
        self._dataset_meta = dataset_meta
        # of a ConcatDataset it may be a list, and a DatasetGroup's members name their own
        is_one = isinstance(dataset_meta, Mapping) and 'classes' in dataset_meta
        self._is_shared = not is_one or 'cumulative_sizes' in dataset_meta
        if is_one:
            self._ids_of_classes()

    def _ids_of_classes(self) -> list:
        """The file's category id of each label."""
        classes = self.dataset_meta['classes']
        id_of = {category['name']: category['id'] for category in self._file['categories']}
        try:
            check_classes(classes, list(id_of), self.ann_file)
        except ValueError as error:
            raise ValueError(f'{error} {_REMEDY}') from error
        return [id_of[name] for name in classes]

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch; ValueError for an image that the file does not list."""
        for sample in () if self._is_shared else data_samples:
            image, path = sample['img_id'], sample.get('img_path')
            file = self._file_of(image)
            if path is not None and not same_picture(path, file):
                raise ValueError(
                    f'{self.ann_file} lists {file} as image {image}, which is {path} in the '
                    f'tested dataset. {_REMEDY}'
                )
        super().process(data_batch, data_samples)

    def _file_of(self, image: Any) -> str:
        if image not in self._files:
            raise ValueError(f'{self.ann_file} does not list image {image}. {_REMEDY}')
        return self._files[image]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """As ``CocoMetric`` does, over the images in ``results``."""
        tested = [result['img_id'] for _, result in results]
        for image in tested:
            self._file_of(image)
        if (total := len(self._files)) > len(set(tested)):
            said = f'{len(set(tested))} of the {total} images of {self.ann_file} are evaluated.'
            print_log(said, logger='current')
        self._coco_api = _Truth(self._file, self._ids_of_classes(), tested)
        self.cat_ids = list(self._coco_api.cats)
        self.img_ids = [self._coco_api.place[image] for image in tested]  # in their order
        return super().compute_metrics(results)

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """Write the detections with the file's own ids."""
        own, self.cat_ids = self.cat_ids, self._ids_of_classes()
        try:
            return super().results2json(results, outfile_prefix)
        finally:
            self.cat_ids = own


class _Truth(CocoIndex):
    """What is tested of a file, renumbered for pycocotools, which fits small numbers alone.

    Categories are numbered as the ``category_ids``, from 1 in the order of labels. The images
    tested get the ``place`` of their id among those sorted, so that equal scores keep their order.
    """

    def __init__(self, coco: dict, category_ids: Sequence, tested: Sequence) -> None:
        names = {category['id']: category['name'] for category in coco['categories']}
        self.place = {id_: place for place, id_ in enumerate(sorted(set(tested)), start=1)}
        self.number = {id_: number for number, id_ in enumerate(category_ids, start=1)}
        images = [image for image in coco['images'] if image['id'] in self.place]
        annotations = [
            dict(ann, iscrowd=ann['iscrowd'] or ann.get('ignore', 0))
            for ann in coco['annotations']
            if ann['image_id'] in self.place and ann['category_id'] in self.number
        ]
        categories = [dict(id=number, name=names[id_]) for id_, number in self.number.items()]
        super().__init__(
            dict(
                images=[dict(image, id=self.place[image['id']]) for image in images],
                annotations=self._renumbered(annotations),
                categories=categories,
            )
        )

    def _renumbered(self, entries: Sequence[dict]) -> list[dict]:
        return [
            dict(
                entry,
                image_id=self.place[entry['image_id']],
                category_id=self.number[entry['category_id']],
            )
            for entry in entries
        ]

    def loadRes(self, detections: list[dict]) -> Any:  # noqa: N802
        """The detections beside the truth, from the file's ids."""
        return super().loadRes(self._renumbered(detections))
