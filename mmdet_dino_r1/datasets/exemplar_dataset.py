"""The reference images from which a prompt bank is encoded.

An *exemplar* is what gives one embedding: one box in an image, with its class; for a joint prompt
encoder all boxes of a class on an image. A *shot* is one exemplar of a class. Boxes are
(x1, y1, x2, y2) in pixels: of the image file in entries, of the network input in data samples.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from os import path as osp
from typing import Any

from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get

from ..config.mmdet_2 import explain_arguments
from ..structures.coco_file import check_classes, read_coco
from ..structures.prompt_instances import prompt_instances
from .exemplar_selection import Box, candidate_boxes, choose_exemplars


@DATASETS.register_module()
class ExemplarDataset(BaseDetDataset):
    """Up to ``shots`` exemplars of each class, by image.

    Holds only the images that carry a chosen exemplar (see ``exemplar_selection.py``), each once,
    ordered by size, then id, for batches of one size. An item is what ``PackDetInputs`` packs, with
    :func:`prompt_instances`, whose labels index ``metainfo['classes']``.

    Args:
        ann_file: COCO- or LVIS-format annotation file.
        pipeline: a test pipeline that ends in ``PackDetInputs`` and at most resizes the image.
            ``LoadAnnotations`` may be left out.
        shots: most exemplars per class; None: all that can serve.
        seed: another seed chooses other exemplars.
        classes: names wanted, in the order of the labels. None takes every category with a box, in
            the order of the file.
        category_ids: for each of ``classes`` its category in this file, whose names may then be
            others (some ODinW sets rename classes in the test split only). None matches by name.
        skip_missing: leave out classes that the file lacks or has no box of, instead of failing;
            ``summary`` names them. True for all, or the names of those that may be left out.
        joint: for a joint prompt encoder: an exemplar is all usable boxes of a class on one image.
        data_root: prefix of ``ann_file`` and of the image folder.
        data_prefix: image folder, under ``img``.
        backend_args: file backend of the annotation file.

    Attributes:
        class_ids: category id, in the annotation file, of each of ``metainfo['classes']``.
        summary: what to state beside every number measured with these exemplars; its keys are told
            in docs/prompt_banks.md.

    Raises:
        ValueError: the file is not COCO JSON, lacks a class wanted or a box of it, or ``shots`` is
            not positive.
        FileNotFoundError: there is no such file.
    """

    METAINFO: dict = dict()

    def __init__(
        self,
        ann_file: str,
        pipeline: list[Any],
        shots: int | None = 16,
        seed: int = 0,
        classes: Sequence[str] | None = None,
        category_ids: Sequence[int] | None = None,
        skip_missing: bool | Collection[str] = False,
        joint: bool = False,
        data_root: str = '',
        data_prefix: dict | None = None,
        backend_args: dict | None = None,
    ) -> None:
        if wrong := explain_arguments(dict(ann_file=ann_file, data_prefix=data_prefix)):
            raise ValueError(f'The source of the exemplars: {wrong}')
        if shots is not None and shots < 1:
            raise ValueError(f'shots must be at least 1, got {shots}.')
        if category_ids is not None and (classes is None or len(category_ids) != len(classes)):
            raise ValueError('category_ids must name one category for each of classes.')
        self.shots = shots
        self.seed = seed
        self.classes_wanted = classes
        self.category_ids = category_ids
        self.joint = joint
        may_lack = classes if skip_missing is True else skip_missing
        self.needed = set(classes or ()) - set(may_lack or ())
        super().__init__(
            ann_file=ann_file,
            pipeline=pipeline,
            data_root=data_root,
            data_prefix=data_prefix or dict(img=''),
            backend_args=backend_args,
            test_mode=True,
        )

    def load_data_list(self) -> list[dict]:
        """Choose the exemplars; one entry per image that carries some.

        Raises:
            FileNotFoundError: there is no annotation file.
            ValueError: it is not COCO JSON, or lacks a class wanted or any box that could serve.
        """
        if not osp.isfile(self.ann_file) and '://' not in self.ann_file:
            raise FileNotFoundError(
                f'The annotation file of the exemplars does not exist: {self.ann_file}'
            )
        content = get(self.ann_file, backend_args=self.backend_args)
        coco = self.read(content)
        categories = self._categories(coco)  # id -> our name
        candidates = self.candidates(coco, categories)
        # a category that is not in the file at all has no entry among the candidates
        wanted = candidates if self.classes_wanted is None else self.classes_wanted
        classes = [name for name in wanted if candidates.get(name)]
        without = [name for name in wanted if not candidates.get(name)]
        if lacking := [name for name in without if name in self.needed]:
            raise ValueError(
                f'{self.ann_file} has no box that could serve as an exemplar for '
                f'{", ".join(map(repr, lacking))}. Take the exemplars from another annotation '
                'file, leave these classes out, or allow classes without a prompt '
                '(skip_missing=True); these are never detected.'
            )
        if not classes:
            raise ValueError(f'{self.ann_file} has no box that could serve as an exemplar.')
        id_of = {name: id_ for id_, name in categories.items()}
        self._metainfo['classes'] = tuple(classes)
        self.class_ids = tuple(id_of[name] for name in classes)

        images = {image['id']: image for image in coco['images']}
        chosen = defaultdict(list)  # image id -> [(label, box)]
        counts = dict.fromkeys(classes, 0)
        for label, name in enumerate(classes):
            boxes = self.choose(name, candidates[name])
            counts[name] = len({image_id for image_id, _ in boxes} if self.joint else boxes)
            for image_id, box in boxes:
                chosen[image_id].append((label, box))
        held = self.held(images, chosen)
        self.summary = dict(
            ann_file=self.ann_file,
            ann_sha256=hashlib.sha256(content).hexdigest(),
            img_prefix=self.data_prefix['img'],
            seed=self.seed,
            shots='all' if self.shots is None else self.shots,
            fewest=min(counts.values()),
            most=max(counts.values()),
            num_images=len(held),
            images_in_file=len(images),
            num_exemplars=sum(counts.values()),
            num_boxes=sum(map(len, chosen.values())),
            joint=self.joint,
            counts=counts,
            classes_left_out=without,
            renamed=self._renamed,
        )
        order = sorted(held, key=lambda id_: (images[id_]['height'], images[id_]['width'], id_))
        return [self._data_info(images[id_], chosen[id_]) for id_ in order]

    def read(self, content: bytes) -> dict:
        """The annotation file as ``read_coco`` returns it."""
        # matched by id, names do not matter and may repeat
        return read_coco(content, self.ann_file, unique_names=self.category_ids is None)

    def candidates(self, coco: dict, categories: dict[int, str]) -> dict[str, list]:
        """Boxes that may be chosen; see :func:`candidate_boxes`."""
        return candidate_boxes(coco, categories)

    def choose(self, name: str, candidates: list) -> list:
        """Those of a class that are; see :func:`choose_exemplars`."""
        return choose_exemplars(candidates, self.shots, self.seed, name, self.joint)

    def held(self, images: Mapping, chosen: Mapping) -> Collection:
        """Of all images by id, and the exemplars chosen on some of them, the ids to hold."""
        return chosen

    def _categories(self, coco: dict) -> dict[int, str]:
        """Class name, as wanted, of each category id that is wanted."""
        names = {cat['id']: cat['name'] for cat in coco['categories']}
        self._renamed: dict[str, str] = {}
        if self.classes_wanted is None:
            return names
        if self.category_ids is None:
            needed = [name for name in self.classes_wanted if name in self.needed]
            check_classes(needed, list(names.values()), self.ann_file)
            wanted = set(self.classes_wanted)
            return {id_: name for id_, name in names.items() if name in wanted}
        by_id = dict(zip(self.category_ids, self.classes_wanted, strict=True))
        lacking = [
            f'{id_} ({name!r})'
            for id_, name in by_id.items()
            if id_ not in names and name in self.needed
        ]
        if lacking:
            raise ValueError(
                f'{self.ann_file} has no categories of id {", ".join(lacking)}; its ids are '
                f'{", ".join(map(str, sorted(names)))}. skip_missing=True leaves these classes '
                'without a prompt; they are never detected.'
            )
        found = {id_: name for id_, name in by_id.items() if id_ in names}
        self._renamed = {names[id_]: name for id_, name in found.items() if names[id_] != name}
        return found

    def _data_info(self, image: dict, chosen: list[tuple[int, Box]]) -> dict:
        chosen = sorted(chosen)
        return dict(
            img_id=image['id'],
            file_name=image['file_name'],
            img_path=osp.join(self.data_prefix['img'], image['file_name']),
            height=image['height'],
            width=image['width'],
            instances=[],
            exemplar_labels=[label for label, _ in chosen],
            exemplar_boxes=[box for _, box in chosen],
        )

    def check_images(self) -> None:
        """Look for every image file before any is encoded; FileNotFoundError if one is missing."""
        if '://' in self.data_prefix['img'] or self.backend_args:
            return  # not on this machine
        paths = [self.get_data_info(index)['img_path'] for index in range(len(self))]
        missing = [path for path in paths if not os.path.isfile(path)]
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of {len(paths)} images with exemplars are missing, among them '
                f'{missing[0]}. The image folder is {self.data_prefix["img"] or "."}; '
                f'the file names are those of {self.ann_file}.'
            )

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline and attach ``prompt_instances``, whose boxes do not pass through it.

        Raises:
            ValueError: the image cannot be read or has another size than annotated, or the
                pipeline does more than resize.
        """
        info = self.get_data_info(idx)
        labels, boxes = info.pop('exemplar_labels'), info.pop('exemplar_boxes')
        ori_shape = info['height'], info['width']
        try:
            data = self.pipeline(info)
        except Exception as error:
            raise ValueError(f'{info["img_path"]} cannot be read as an image: {error}') from error
        sample = data['data_samples']
        check_only_resized(sample.metainfo, ori_shape)
        sample.prompt_instances = prompt_instances(boxes, labels, ori_shape, sample.img_shape)
        return data


def check_only_resized(metainfo: dict, ori_shape: tuple[int, int]) -> None:
    """ValueError where an image has another (height, width) or the pipeline did not only resize."""
    found = metainfo.get('ori_shape', ori_shape)[:2]
    if tuple(found) != tuple(ori_shape):
        raise ValueError(
            f'{metainfo.get("img_path")} is {found[1]}x{found[0]} pixels, its '
            f'annotation file says {ori_shape[1]}x{ori_shape[0]}.'
        )
    height, width = metainfo['img_shape']
    scale = metainfo.get('scale_factor', (1.0, 1.0))  # (w, h)
    off = abs(height - ori_shape[0] * scale[1]), abs(width - ori_shape[1] * scale[0])
    if max(off) > 1 or metainfo.get('flip', False):
        raise ValueError(
            'The pipeline flips, crops or pads the image, or its PackDetInputs leaves scale_factor '
            'out of meta_keys; give it a test pipeline that only resizes.'
        )
