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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
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


@dataclass(frozen=True)
class ShapesConfig:
    """What the set is made of; ValueError where a number is too small."""

    seed: int = 0  # another one gives other classes and images
    image_size: int = 128  # height and width in pixels
    num_base_classes: int = 30  # in train and val
    num_novel_classes: int = 10  # in val_novel and prompts_novel
    train_images: int = 1600
    val_images: int = 200
    val_novel_images: int = 200
    prompts_novel_images: int = 80
    difficulty: ShapesDifficulty = field(default_factory=ShapesDifficulty)

    def __post_init__(self) -> None:
        for name in [item.name for item in fields(self)[:-1]]:
            least = dict(seed=0, image_size=32).get(name, 1)
            if (value := getattr(self, name)) < least:
                raise ValueError(f'ShapesConfig.{name} must be at least {least}, got {value}.')


def generate_shapes(
    root: str | os.PathLike,
    config: ShapesConfig | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the shapes set in a folder, unless it is there already; returns the folder.

    Args:
        root: folder of the set; made where it is missing.
        config: defaults to ``ShapesConfig()``.
        workers: processes that draw; 1 draws in this process. The result does not depend on it.
        overwrite: replace a set made with another config.
        progress: called with the number of images drawn and of images in all.

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
                f'{root} holds a shapes set made with another config or version; pass --overwrite '
                '(overwrite=True) to replace it, or choose another folder.'
            )
        _remove(root, made)

    numbers = {split: getattr(config, f'{split}_images') for split in SPLITS}
    done, total = 0, sum(numbers.values())
    # cv2's own threads would only fight over the same cores
    start = partial(ProcessPoolExecutor, workers, initializer=cv2.setNumThreads, initargs=(0,))
    with start() if workers > 1 else nullcontext() as pool:
        map_in_order = partial(pool.map, chunksize=16) if pool else map
        for split, number in numbers.items():
            (root / 'images' / split).mkdir(parents=True, exist_ok=True)
            (root / 'annotations').mkdir(exist_ok=True)
            boxes_of_images = []
            draw = partial(_draw_and_save, root, config, split)
            for boxes in map_in_order(draw, range(number)):
                boxes_of_images.append(boxes)
                done += 1
                if progress is not None:
                    progress(done, total)
            # Written last: a split without its file is not a made one.
            coco = _to_coco(config, split, boxes_of_images)
            _annotation_file(root, split).write_text(json.dumps(coco))
    return root


def shapes_checksums(root: str | os.PathLike) -> dict[str, str]:
    """What a finished set is, in two words: to tell whether two machines drew the same.

    The first 16 hexadecimal digits of the SHA-256 of all annotation files (``annotations``) and of
    all decoded pixels in their order (``pixels``).

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
                    f'{root / image["file_name"]} is missing or broken; make the set again in an '
                    'empty folder.'
                )
            pixels.update(drawn.tobytes())
    return dict(annotations=annotations.hexdigest()[:16], pixels=pixels.hexdigest()[:16])


# ------------------------------------------------------------- one image
def _draw_and_save(root: Path, config: ShapesConfig, split: str, index: int) -> list[dict]:
    """Draw and save an image; return its objects as COCO writes them, without ids."""
    rng = np.random.default_rng([_STREAM_IMAGE, config.seed, SPLITS.index(split), index])
    labels = _labels_of_image(config, split, index, rng)
    classes, first_id = _classes_of_split(config, split)
    image, objects = draw_image(
        classes, labels, config.image_size, config.difficulty, rng, _distractor_classes(config)
    )
    path = root / _file_name(split, index)
    if not cv2.imwrite(str(path), image):
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
        seed = [_STREAM_DECK, config.seed, SPLITS.index(split), shuffle]
        cards.append(int(np.random.default_rng(seed).permutation(num_classes)[card]))
    num_objects = int(rng.integers(*config.difficulty.objects_per_image, endpoint=True))
    extra = rng.choice(cards, size=max(0, num_objects - hand)).tolist()
    return (cards + extra)[:num_objects]


@lru_cache(maxsize=4)
def _all_classes(config: ShapesConfig) -> tuple[ShapeClass, ...]:
    """Base classes, then novel ones."""
    number, look = config.num_base_classes + config.num_novel_classes, config.difficulty
    rng = np.random.default_rng([_STREAM_CLASSES, config.seed])
    return tuple(draw_classes(number, look.class_distance, rng, look.near_duplicates))


@lru_cache(maxsize=4)
def _distractor_classes(config: ShapesConfig) -> tuple[ShapeClass, ...]:
    """Classes that are drawn and never annotated; none where there are no distractors."""
    if config.difficulty.distractors[1] == 0:
        return ()
    distance = config.difficulty.class_distance
    rng = np.random.default_rng([_STREAM_DISTRACTORS, config.seed])
    return tuple(draw_classes(12, distance, rng, apart_from=_all_classes(config)))


def _classes_of_split(config: ShapesConfig, split: str) -> tuple[tuple[ShapeClass, ...], int]:
    """Classes of a split and the category id of the first."""
    classes, num_base = _all_classes(config), config.num_base_classes
    if split.endswith('novel'):
        return classes[num_base:], num_base + 1
    return classes[:num_base], 1


# ------------------------------------------------------- files and folders
def _file_name(split: str, index: int) -> str:
    return f'images/{split}/{index:06d}.png'


def _annotation_file(root: Path, split: str) -> Path:
    return root / 'annotations' / f'{split}.json'


def _info(split: str, config: ShapesConfig) -> dict:
    """What a split's file says about its making, as JSON reads it back."""
    made_of = asdict(config)
    # options that came later: unused they are not written down, so sets made before count as made
    for name, unused in dict(near_duplicates=0.0, distractors=(0, 0)).items():
        if made_of['difficulty'][name] == unused:
            del made_of['difficulty'][name]
    info = dict(description='shapes', version=SHAPES_VERSION, split=split, config=made_of)
    return json.loads(json.dumps(info))


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
    about = _info(split, config)
    return dict(info=about, images=images, annotations=annotations, categories=categories)


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
                f'{path} is there but was not made by generate_shapes; move it away or choose '
                'another folder.'
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
