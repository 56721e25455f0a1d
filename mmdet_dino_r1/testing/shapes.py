"""The *shapes* set: a small detection benchmark that anyone can make.

Textured random outlines on clutter, in COCO format, with base classes to train on and novel classes
that only prompts can name. The set depends on its ``ShapesConfig`` alone: not on the number of
workers, the machine or the day.

    <root>/images/{train,val,val_novel,prompts_novel}/000000.png
    <root>/annotations/{train,val,val_novel,prompts_novel}.json

Category ids count from 1 through the base classes, then on through the novel ones; each file lists
only the categories of its split.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np

from .shapes_classes import ShapeClass, draw_classes
from .shapes_drawing import ShapesDifficulty, draw_image

# Rises whenever the same config would give other pixels or annotations.
SHAPES_VERSION = '1.0'
SPLITS = ('train', 'val', 'val_novel', 'prompts_novel')
# First entries of the seeds of numpy's generators: one stream each.
_STREAM_CLASSES, _STREAM_DECK, _STREAM_IMAGE, _STREAM_DISTRACTORS = range(4)
_NUM_DISTRACTOR_CLASSES = 12
# Options of ShapesDifficulty that came later. At these values they change nothing and are not
# written down, so that sets made before count as made.
_NEUTRAL = dict(near_duplicates=0.0, distractors=(0, 0))


@dataclass(frozen=True)
class ShapesConfig:
    """What the set is made of.

    Args:
        seed: not negative. Another seed gives other classes and images.
        image_size: height and width in pixels, at least 32.
        num_base_classes: classes of ``train`` and ``val``.
        num_novel_classes: classes of ``val_novel`` and ``prompts_novel``.
        train_images: images to train on, base classes.
        val_images: images to test on, base classes.
        val_novel_images: images to test on, novel classes.
        prompts_novel_images: reference images of the novel classes.
        difficulty: all rendering parameters.

    Raises:
        ValueError: a number is out of range.
    """

    seed: int = 0
    image_size: int = 128
    num_base_classes: int = 30
    num_novel_classes: int = 10
    train_images: int = 1600
    val_images: int = 200
    val_novel_images: int = 200
    prompts_novel_images: int = 80
    difficulty: ShapesDifficulty = field(default_factory=ShapesDifficulty)

    def __post_init__(self) -> None:
        smallest = dict(seed=0, image_size=32, num_base_classes=1, num_novel_classes=1)
        for split in SPLITS:
            smallest[f'{split}_images'] = 1
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f'ShapesConfig.{name} must be at least {least}, got {getattr(self, name)}.'
                )


def generate_shapes(
    root: str | os.PathLike,
    config: ShapesConfig | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the shapes set, unless it is there already.

    Args:
        root: folder of the set; created if absent.
        config: defaults to ``ShapesConfig()``.
        workers: processes that draw; 1 draws in this process. The result does not depend on it.
        overwrite: replace a set made with another config.
        progress: called with the number of images drawn and of images in all.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` holds a set of another config and ``overwrite`` is false, or
            annotations not made here.
    """
    root = Path(root)
    config = config or ShapesConfig()
    made = _made_splits(root)
    infos = {split: _info(split, config) for split in SPLITS}
    if made == infos:
        return root
    if any(info != infos[split] for split, info in made.items()):
        if not overwrite:
            raise FileExistsError(
                f'{root} holds a shapes set made with another config or '
                'version; pass --overwrite (overwrite=True) to replace it, '
                'or choose another folder.'
            )
        _remove(root, made)

    total = sum(_num_images(config, split) for split in SPLITS)
    done = 0
    with _mapper(workers) as map_in_order:
        for split in SPLITS:
            (root / 'images' / split).mkdir(parents=True, exist_ok=True)
            (root / 'annotations').mkdir(exist_ok=True)
            boxes_of_images = []
            draw = partial(_draw_and_save, str(root), config, split)
            for boxes in map_in_order(draw, range(_num_images(config, split))):
                boxes_of_images.append(boxes)
                done += 1
                if progress is not None:
                    progress(done, total)
            # Written last: a split without its file is not a made one.
            _annotation_file(root, split).write_text(
                json.dumps(_to_coco(config, split, boxes_of_images))
            )
    return root


def shapes_checksums(root: str | os.PathLike) -> dict[str, str]:
    """What a set is, in two words: to tell whether two machines drew the same.

    Args:
        root: folder of a finished set.

    Returns:
        SHA-256 in hexadecimal digits, the first 16: of all annotation files (``annotations``) and
        of all decoded pixels in their order (``pixels``).

    Raises:
        FileNotFoundError: a split or an image is missing or an image is broken.
    """
    root = Path(root)
    annotations, pixels = hashlib.sha256(), hashlib.sha256()
    for split in SPLITS:
        coco = json.loads(_annotation_file(root, split).read_text())
        annotations.update(json.dumps(coco, sort_keys=True).encode())
        for image in coco['images']:
            drawn = cv2.imread(str(root / image['file_name']))
            if drawn is None:
                raise FileNotFoundError(
                    f'{root / image["file_name"]} is missing or broken; '
                    'make the set again in an empty folder.'
                )
            pixels.update(drawn.tobytes())
    return dict(annotations=annotations.hexdigest()[:16], pixels=pixels.hexdigest()[:16])


# ------------------------------------------------------------- one image
def _draw_and_save(root: str, config: ShapesConfig, split: str, index: int) -> list[dict]:
    """Draw and save an image; return its ``category_id``, ``bbox``, ``area``.

    Boxes are ``[x, y, width, height]`` in pixels. Seeded by split and index.
    """
    rng = np.random.default_rng([_STREAM_IMAGE, config.seed, SPLITS.index(split), index])
    labels = _labels_of_image(config, split, index, rng)
    classes, first_id = _classes_of_split(config, split)
    image, objects = draw_image(
        classes, labels, config.image_size, config.difficulty, rng, _distractor_classes(config)
    )
    path = str(Path(root) / _file_name(split, index))
    if not cv2.imwrite(path, image):
        raise OSError(f'Could not write the image {path}.')
    annotations = []
    for drawn in objects:
        x1, y1, x2, y2 = drawn.box()
        place = dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=float(drawn.visible.sum()))
        annotations.append(dict(category_id=first_id + drawn.label, **place))
    return annotations


def _labels_of_image(
    config: ShapesConfig, split: str, index: int, rng: np.random.Generator
) -> list[int]:
    """Class of each object to draw in an image.

    An image takes the next ``classes_per_image`` cards of a deck in which every class turns up
    equally often, so small splits are balanced as well.
    """
    hand = config.difficulty.classes_per_image
    num_classes = len(_classes_of_split(config, split)[0])
    cards = []
    for position in range(index * hand, (index + 1) * hand):
        shuffle, card = divmod(position, num_classes)
        order = np.random.default_rng(
            [_STREAM_DECK, config.seed, SPLITS.index(split), shuffle]
        ).permutation(num_classes)
        cards.append(int(order[card]))
    num_objects = int(rng.integers(*config.difficulty.objects_per_image, endpoint=True))
    extra = rng.choice(cards, size=max(0, num_objects - hand)).tolist()
    return (cards + extra)[:num_objects]


@lru_cache(maxsize=4)
def _all_classes(config: ShapesConfig) -> tuple[ShapeClass, ...]:
    """Base classes, then novel ones."""
    rng = np.random.default_rng([_STREAM_CLASSES, config.seed])
    return tuple(
        draw_classes(
            config.num_base_classes + config.num_novel_classes,
            config.difficulty.class_distance,
            rng,
            config.difficulty.near_duplicates,
        )
    )


@lru_cache(maxsize=4)
def _distractor_classes(config: ShapesConfig) -> tuple[ShapeClass, ...]:
    """Classes that are drawn and never annotated; none where there are no distractors."""
    if config.difficulty.distractors[1] == 0:
        return ()
    return tuple(
        draw_classes(
            _NUM_DISTRACTOR_CLASSES,
            config.difficulty.class_distance,
            np.random.default_rng([_STREAM_DISTRACTORS, config.seed]),
            apart_from=_all_classes(config),
        )
    )


def _classes_of_split(config: ShapesConfig, split: str) -> tuple[tuple[ShapeClass, ...], int]:
    """Classes of a split and the category id of the first."""
    classes, num_base = _all_classes(config), config.num_base_classes
    if split.endswith('novel'):
        return classes[num_base:], num_base + 1
    return classes[:num_base], 1


# ------------------------------------------------------- files and folders
def _num_images(config: ShapesConfig, split: str) -> int:
    return getattr(config, f'{split}_images')


def _file_name(split: str, index: int) -> str:
    return f'images/{split}/{index:06d}.png'


def _annotation_file(root: Path, split: str) -> Path:
    return root / 'annotations' / f'{split}.json'


def _info(split: str, config: ShapesConfig) -> dict:
    """What a split's file says about its making, as JSON reads it back."""
    made_of = asdict(config)
    for name, neutral in _NEUTRAL.items():
        if made_of['difficulty'][name] == neutral:
            del made_of['difficulty'][name]
    return json.loads(
        json.dumps(dict(description='shapes', version=SHAPES_VERSION, split=split, config=made_of))
    )


def _to_coco(config: ShapesConfig, split: str, boxes_of_images: list[list[dict]]) -> dict:
    """COCO dict of a split; image and annotation ids count from 1."""
    classes, first_id = _classes_of_split(config, split)
    images, annotations = [], []
    for index, boxes in enumerate(boxes_of_images):
        size = dict(width=config.image_size, height=config.image_size)
        images.append(dict(id=index + 1, file_name=_file_name(split, index), **size))
        for box in boxes:
            annotations.append(dict(id=len(annotations) + 1, image_id=index + 1, iscrowd=0, **box))
    categories = [dict(id=first_id + label, name=shape.name) for label, shape in enumerate(classes)]
    return dict(
        info=_info(split, config), images=images, annotations=annotations, categories=categories
    )


def _made_splits(root: Path) -> dict[str, dict]:
    """``info`` of every split that is there."""
    made = {}
    for split in SPLITS:
        path = _annotation_file(root, split)
        if not path.exists():
            continue
        try:
            info = json.loads(path.read_text())['info']
            ours = info['description'] == 'shapes' and 'config' in info
        except (ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise FileExistsError(
                f'{path} is there but was not made by generate_shapes; '
                'move it away or choose another folder.'
            )
        made[split] = info
    return made


def _remove(root: Path, made: dict[str, dict]) -> None:
    """Delete the set, and nothing that its own files do not list."""
    for split in made:
        path = _annotation_file(root, split)
        images = json.loads(path.read_text())['images']
        path.unlink()
        for image in images:
            (root / image['file_name']).unlink(missing_ok=True)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable]:
    """A ``map`` that keeps the order, over processes if there are several."""
    if workers <= 1:
        yield map
        return
    # cv2's own threads would only fight over the same cores
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        yield partial(pool.map, chunksize=16)
