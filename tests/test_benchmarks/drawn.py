"""Small sets of noise, annotated as a test wants them, and truth that random weights find."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((120, 80), (80, 100))  # width, height


def draw_set(
    folder: Path,
    contents: Sequence[Sequence[int]],
    names: Mapping[int, str],
    seed: int = 0,
    first_id: int = 1,
) -> dict:
    """Write images of noise, in turn of two sizes, named by id as COCO's are.

    Args:
        folder: Where they go.
        contents: Category of each box, image by image.
        names: Of each category id.
        seed: Of pixels and boxes.
        first_id: Of the images; the others follow.

    Returns:
        Their annotations in COCO format, boxes of 10 pixels or more inside the image.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for image_id, categories in enumerate(contents, first_id):
        size = np.array(SIZES[image_id % 2])
        pixels = rng.integers(0, 255, (*size[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{image_id:012}.jpg')
        images.append(
            dict(id=image_id, file_name=f'{image_id:012}.jpg')
            | dict(zip(('width', 'height'), size.tolist(), strict=True))
        )
        for category in categories:
            sides = rng.integers(10, size // 2)
            corner = rng.integers(0, size - sides)
            annotations.append(
                dict(id=len(annotations) + 1, image_id=image_id, category_id=category, iscrowd=0)
                | dict(bbox=[*corner.tolist(), *sides.tolist()], area=int(sides.prod()))
            )
    categories = [dict(id=id_, name=name) for id_, name in names.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def put_truth_on_detections(ann_file: Path, results: Path) -> None:
    """Annotate what random weights see, or every metric would be zero.

    Two of three boxes take the place, a little off, and the category of a detection on their
    image: the best one, the 13th, the 109th and so on, ever farther down.

    Args:
        ann_file: Changed in place.
        results: Detections in COCO's format.
    """
    truth = json.loads(ann_file.read_text())
    found = defaultdict(list)
    for item in sorted(json.loads(results.read_text()), key=lambda item: -item['score']):
        found[item['image_id']].append(item)
    for image_id, detections in found.items():
        own = [ann for ann in truth['annotations'] if ann['image_id'] == image_id]
        for rank, annotation in enumerate(own):
            if rank % 3 != 2:
                detection = detections[12 * rank**2 % len(detections)]
                x, y, width, height = detection['bbox']
                box = [x + width * (rank % 5) / 20, y, width, height]
                annotation |= dict(bbox=box, area=width * height)
                annotation['category_id'] = detection['category_id']
    ann_file.write_text(json.dumps(truth))
