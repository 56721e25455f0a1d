"""Which boxes of an annotation file become exemplars; the paper gives no rule, this is ours.

For each class:

1. Crowds, ignored boxes and boxes whose width or height inside the image is under 8 pixels are
   skipped. If nothing is left, the largest of the smaller boxes (each side at least 1 pixel) are
   used instead.
2. Its images are shuffled by a generator seeded with the seed and the name of the class. So the
   choice depends neither on other classes, nor on category ids, nor on the order of the file.
3. Each image gives one of its boxes at random, then a second one where it has one, and so on until
   there are enough. For a joint prompt encoder, whose exemplar is what an image shows of a class,
   the first images give all of their boxes. Fewer shots are the first ones of more.

Boxes are (x1, y1, x2, y2) in pixels of the image file.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

Box = tuple[float, float, float, float]
# Boxes whose sides are shorter show too little to serve as an exemplar.
MIN_SIDE = 8.0


def candidate_boxes(
    coco: dict, categories: Mapping[int, str], smallest: float = 1
) -> dict[str, list[tuple[Any, Box]]]:
    """The boxes that may become exemplars, by class: ``(image id, box)``, clipped to their image.

    Boxes outside it, with a side under ``smallest`` pixels, crowds and ignored ones are left out.
    ``coco`` is what ``read_coco`` returns, ``categories`` names each category id wanted.
    """
    images = {image['id']: image for image in coco['images']}
    found: dict[str, list[tuple[Any, Box]]] = {name: [] for name in categories.values()}
    for ann in coco['annotations']:
        name = categories.get(ann['category_id'])
        if name is None or ann['iscrowd'] or ann.get('ignore'):
            continue
        box = _clipped(ann['bbox'], images[ann['image_id']])
        if shorter_side(box) >= smallest:
            found[name].append((ann['image_id'], box))
    return found


def choose_exemplars(
    candidates: Sequence[tuple[Any, Box]],
    shots: int | None,
    seed: int,
    name: str,
    joint: bool = False,
) -> list[tuple[Any, Box]]:
    """Choose exemplars of one class by the rule above, first choice first.

    Candidates are its boxes in any order, none of them degenerate. With ``joint`` a shot is an
    image with all of its usable boxes, else one box; None are all shots.
    """
    usable = [item for item in candidates if shorter_side(item[1]) >= MIN_SIDE]
    if not usable:
        largest_first = sorted(candidates, key=lambda item: (-_area(item[1]), item))
        if not joint:
            return largest_first[:shots]
        first = list(dict.fromkeys(image_id for image_id, _ in largest_first))[:shots]
        return [item for item in largest_first if item[0] in first]

    by_image = defaultdict(list)
    for image_id, box in sorted(usable):
        by_image[image_id].append(box)
    # Python promises the same `random()` of a seed in every version, and of no other method.
    rng = random.Random(f'{seed}/{name}')
    order = sorted(by_image, key=lambda _: rng.random())
    if joint:
        return [(image_id, box) for image_id in order[:shots] for box in by_image[image_id]]
    for image_id in order:
        by_image[image_id].sort(key=lambda _: rng.random())

    in_turn = zip_longest(*([(id_, box) for box in by_image[id_]] for id_ in order))
    return [item for turn in in_turn for item in turn if item is not None][:shots]


def shorter_side(box: Box) -> float:
    """Pixels; not positive for a box outside its image."""
    return min(box[2] - box[0], box[3] - box[1])


def _clipped(bbox: Sequence[float], image: dict) -> Box:
    """COCO's (x, y, w, h) as a box inside the image."""
    x, y, width, height = bbox
    return (
        max(0.0, x),
        max(0.0, y),
        min(float(image['width']), x + width),
        min(float(image['height']), y + height),
    )


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
