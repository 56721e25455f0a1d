"""The reference images from which a prompt bank is encoded.

Names: an *exemplar* is one box in an image, with its class; a *shot* is one
exemplar of a class. Boxes are ``(x1, y1, x2, y2)`` in pixels: of the image
file in annotations, of the network input in data samples.
"""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from os import path as osp
from typing import Any

import torch
from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get_local_path
from mmengine.structures import InstanceData

from .coco_json import check_classes, check_coco

Box = tuple[float, float, float, float]
# Boxes whose sides are shorter show too little to serve as an exemplar.
MIN_SIDE = 8.0


@DATASETS.register_module()
class ExemplarDataset(BaseDetDataset):
    """Up to ``shots`` exemplars of each class, by image.

    Holds only the images that carry a chosen exemplar, each once, in the
    order of their ids. An item is what ``PackDetInputs`` packs, and its
    ``data_samples`` carries ``prompt_instances``: an ``InstanceData`` of
    ``bboxes``, float ``(n, 4)`` in pixels of the network input (the frame of
    ``img_shape``), and of ``labels``, long ``(n, )`` into
    ``metainfo['classes']``.

    How exemplars are chosen is ours; the paper gives no rule. For each class:

    1. Crowds, ignored boxes and boxes whose width or height inside the image
       is under 8 pixels are skipped. If nothing is left, the largest of the
       smaller boxes (each side at least 1 pixel) are used instead.
    2. Its images are shuffled by a generator seeded with ``seed`` and the
       name of the class. So the choice depends neither on other classes, nor
       on category ids, nor on the order of the file.
    3. Each image gives one of its boxes at random, then a second one where
       it has one, and so on until there are ``shots``. Fewer shots are the
       first ones of more.

    Args:
        ann_file (str): COCO- or LVIS-format annotation file. An image
            without ``file_name`` is found by the last two parts of its
            ``coco_url``, as in LVIS.
        pipeline (list): A test pipeline that ends in ``PackDetInputs`` and at
            most resizes the image. ``LoadAnnotations`` may be left out.
        shots (int): Most exemplars per class.
        seed (int): Another seed chooses other exemplars.
        classes (Sequence[str], optional): Names wanted, in the order of the
            labels. ``None`` takes every category with a box, in the order of
            the file.
        data_root (str): Prefix of ``ann_file`` and of the image folder.
        data_prefix (dict): Image folder, under ``img``.
        backend_args (dict, optional): File backend of the annotation file.

    Raises:
        ValueError: If the file is not COCO JSON, lacks a class wanted or a
            box of it, or ``shots`` is not positive.
    """

    METAINFO: dict = dict()

    def __init__(
        self,
        ann_file: str,
        pipeline: list[Any],
        shots: int = 16,
        seed: int = 0,
        classes: Sequence[str] | None = None,
        data_root: str = '',
        data_prefix: dict | None = None,
        backend_args: dict | None = None,
    ) -> None:
        if shots < 1:
            raise ValueError(f'shots must be at least 1, got {shots}.')
        self.shots = shots
        self.seed = seed
        self.classes_wanted = classes
        super().__init__(
            ann_file=ann_file,
            pipeline=pipeline,
            data_root=data_root,
            data_prefix=data_prefix or dict(img=''),
            backend_args=backend_args,
            test_mode=True,
        )

    @property
    def summary(self) -> dict[str, Any]:
        """What to state beside every number measured with these exemplars.

        Returns:
            dict: ``ann_file``, ``seed``, ``shots`` (the most asked for),
            ``fewest`` and ``most`` exemplars of a class, ``num_images``,
            ``num_exemplars``, ``counts`` by class name and
            ``classes_left_out``, the categories without a box.
        """
        counts = self._counts
        return dict(
            ann_file=self.ann_file,
            seed=self.seed,
            shots=self.shots,
            fewest=min(counts.values(), default=0),
            most=max(counts.values(), default=0),
            num_images=len(self),
            num_exemplars=sum(counts.values()),
            counts=dict(counts),
            classes_left_out=list(self._classes_left_out),
        )

    def load_data_list(self) -> list[dict]:
        """Choose the exemplars; one entry per image that carries some."""
        with get_local_path(self.ann_file, backend_args=self.backend_args) as local_path:
            try:
                with open(local_path, encoding='utf-8') as file:
                    coco = json.load(file)
            except ValueError as error:
                raise ValueError(f'{self.ann_file} is not COCO JSON: {error}') from error
        check_coco(coco, self.ann_file)

        images = {image['id']: image for image in coco['images']}
        candidates = self._candidates(coco, images)
        if self.classes_wanted is None:
            classes = [name for name, boxes in candidates.items() if boxes]
        else:
            classes = list(self.classes_wanted)
            self._check_boxes(candidates)
        self._metainfo['classes'] = tuple(classes)
        self._classes_left_out = [name for name, boxes in candidates.items() if not boxes]

        chosen = defaultdict(list)  # image id -> [(label, box)]
        self._counts = {}
        for label, name in enumerate(classes):
            exemplars = choose_exemplars(candidates[name], self.shots, self.seed, name)
            self._counts[name] = len(exemplars)
            for image_id, box in exemplars:
                chosen[image_id].append((label, box))
        return [self._data_info(images[image_id], chosen[image_id]) for image_id in sorted(chosen)]

    def _candidates(self, coco: dict, images: dict[Any, dict]) -> dict[str, list[tuple]]:
        """``(image id, box)`` of each class wanted, clipped, 1 px or more."""
        names = {cat['id']: cat['name'] for cat in coco['categories']}
        if self.classes_wanted is not None:
            check_classes(self.classes_wanted, list(names.values()), self.ann_file)
            wanted = set(self.classes_wanted)
            names = {id_: name for id_, name in names.items() if name in wanted}
        candidates: dict[str, list[tuple]] = {name: [] for name in names.values()}
        for ann in coco['annotations']:
            name = names.get(ann['category_id'])
            if name is None or ann.get('iscrowd') or ann.get('ignore'):
                continue
            image = images[ann['image_id']]
            x, y, width, height = ann['bbox']
            box = (
                max(0.0, x),
                max(0.0, y),
                min(float(image['width']), x + width),
                min(float(image['height']), y + height),
            )
            if _shorter_side(box) >= 1:
                candidates[name].append((ann['image_id'], box))
        return candidates

    def _check_boxes(self, candidates: dict[str, list[tuple]]) -> None:
        without = [name for name in self.classes_wanted if not candidates[name]]
        if without:
            raise ValueError(
                f'{self.ann_file} has no box that could serve as an exemplar '
                f'for {", ".join(map(repr, without))}. Take the exemplars '
                'from another annotation file or leave these classes out.'
            )

    def _data_info(self, image: dict, chosen: list[tuple[int, Box]]) -> dict:
        file_name = image.get('file_name')
        if file_name is None:
            # http://images.cocodataset.org/train2017/x.jpg: the split of an
            # LVIS image stands only there
            file_name = '/'.join(image['coco_url'].split('/')[-2:])
        chosen = sorted(chosen)
        return dict(
            img_id=image['id'],
            img_path=osp.join(self.data_prefix['img'], file_name),
            height=image['height'],
            width=image['width'],
            instances=[],
            exemplar_labels=[label for label, _ in chosen],
            exemplar_boxes=[box for _, box in chosen],
        )

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline and attach ``prompt_instances``.

        The boxes do not pass through the pipeline: they are scaled from the
        size of the file to ``img_shape``, so it matters neither whether nor
        where ``LoadAnnotations`` stands.

        Raises:
            ValueError: If the pipeline does more than resize.
        """
        info = self.get_data_info(idx)
        labels = info.pop('exemplar_labels')
        boxes = info.pop('exemplar_boxes')
        height, width = info['height'], info['width']
        data = self.pipeline(info)
        sample = data['data_samples']
        _check_only_resized(sample.metainfo, (height, width))
        scale_y = sample.img_shape[0] / height
        scale_x = sample.img_shape[1] / width
        sample.prompt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32)
            * torch.tensor([scale_x, scale_y, scale_x, scale_y]),
            labels=torch.tensor(labels, dtype=torch.long),
        )
        return data


def choose_exemplars(
    candidates: Sequence[tuple[Any, Box]], shots: int, seed: int, name: str
) -> list[tuple[Any, Box]]:
    """Choose exemplars of one class; the rule is ``ExemplarDataset``'s.

    Args:
        candidates (Sequence[tuple]): ``(image id, xyxy box)`` of its boxes in
            any order, none of them degenerate.
        shots (int): Most exemplars.
        seed (int): Of the choice.
        name (str): Of the class; part of the seed.

    Returns:
        list[tuple]: The chosen candidates, first choice first.
    """
    usable = [item for item in candidates if _shorter_side(item[1]) >= MIN_SIDE]
    if not usable:
        largest_first = sorted(candidates, key=lambda item: (-_area(item[1]), item))
        return largest_first[:shots]

    by_image = defaultdict(list)
    for image_id, box in sorted(usable):
        by_image[image_id].append(box)
    # Python promises the same `random()` of a seed in every version, and of
    # no other method.
    rng = random.Random(f'{seed}/{name}')
    order = sorted(by_image, key=lambda _: rng.random())
    for image_id in order:
        by_image[image_id].sort(key=lambda _: rng.random())

    chosen: list[tuple[Any, Box]] = []
    turn = 0
    while len(chosen) < min(shots, len(usable)):
        chosen += [
            (image_id, by_image[image_id][turn])
            for image_id in order
            if turn < len(by_image[image_id])
        ]
        turn += 1
    return chosen[:shots]


def _shorter_side(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _check_only_resized(metainfo: dict, ori_shape: tuple[int, int]) -> None:
    """Raise if the boxes cannot be scaled from ``ori_shape``, (h, w)."""
    found = metainfo.get('ori_shape', ori_shape)[:2]
    if tuple(found) != tuple(ori_shape):
        raise ValueError(
            f'{metainfo.get("img_path")} is {found[1]}x{found[0]} pixels, its '
            f'annotation file says {ori_shape[1]}x{ori_shape[0]}.'
        )
    scale = metainfo.get('scale_factor', (1.0, 1.0))  # (w, h)
    expected = (ori_shape[0] * scale[1], ori_shape[1] * scale[0])
    moved = any(
        abs(got - want) > 1 for got, want in zip(metainfo['img_shape'], expected, strict=True)
    )
    if moved or metainfo.get('flip', False):
        raise ValueError(
            'The pipeline of ExemplarDataset flips, crops or pads the image, or its '
            'PackDetInputs leaves scale_factor out of meta_keys; give it a test '
            'pipeline that only resizes.'
        )
