"""Images from files, URLs and arrays, made ready for the model."""

from __future__ import annotations

import logging
import mimetypes
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log
from torch import Tensor

from ..config.tree import type_name
from ..datasets.exemplar_dataset import check_only_resized
from ..structures.prompt_instances import prompt_instances
from ..utils.near_names import some
from .reference_prompts import POINT_SIZE, BoxesOrPoints, Image, describe, exemplar_boxes

# Files in a folder that must be images; of others, OpenCV looks at the first bytes.
IMAGE_SUFFIXES = frozenset(
    '.avif .bmp .gif .jfif .jp2 .jpeg .jpg .pgm .png .ppm .tif .tiff .webp'.split()
)
# Images waiting for others of their size, in batches, before one goes ahead incomplete.
_MOST_WAITING = 4


class UnreadableImage(ValueError):
    """A file that is not there or no image, or an array of another shape."""


@dataclass
class PreparedImage:
    """An image on its way to the model.

    ``index``: place among the inputs. ``name``: path, URL, or 'array 3'. ``size``: height and width
    as read. ``data``: what the test pipeline packed. ``pixels``: (h, w, 3) in BGR order, as read;
    None where nothing is to be drawn on them.
    """

    index: int
    name: str
    size: tuple[int, int]
    data: dict
    pixels: np.ndarray | None

    def attach(
        self,
        boxes: BoxesOrPoints,
        classes: Sequence[str],
        names: Sequence[str],
        point_size: float = POINT_SIZE,
    ) -> Tensor:
        """Give the data sample prompts of its own, whose labels count in ``names``.

        Returns (n, 4) boxes (x1, y1, x2, y2) in pixels as read; see :func:`exemplar_boxes`.
        """
        drawn = exemplar_boxes(boxes, self.size, self.name, point_size)
        sample = self.data['data_samples']
        labels = [names.index(name) for name in classes]
        sample.prompt_instances = prompt_instances(drawn, labels, self.size, sample.img_shape)
        return drawn


class ImageReader:
    """Reads images and runs the ``pipeline`` of a test set on them.

    Raises:
        ValueError: it does not start with ``LoadImageFromFile`` or a subclass.
    """

    def __init__(self, pipeline: Sequence[dict]) -> None:
        # There is no ground truth to load.
        steps = [step for step in pipeline if type_name(step) != 'LoadAnnotations']
        self.load = TRANSFORMS.build(steps[0]) if steps else None
        if not isinstance(self.load, LoadImageFromFile):
            raise ValueError('The test pipeline does not start with LoadImageFromFile.')
        self._decoding = dict(flag=self.load.color_type, backend=self.load.imdecode_backend)
        as_float = dict(to_float32=steps[0].get('to_float32', False))
        self.take = TRANSFORMS.build(dict(as_float, type='mmdet.LoadImageFromNDArray'))
        self.transform = Compose(steps[1:])

    def __call__(self, image: Image, index: int) -> PreparedImage:
        """Read a path, URL or (h, w, 3) uint8 BGR array, which is the ``index``-th input.

        Raises:
            UnreadableImage: it cannot be read.
            ValueError: the pipeline crops, pads or flips.
        """
        name = describe(image, f'array {index}')
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
                raise UnreadableImage(
                    f'{name} is {image.dtype} {image.shape}; uint8 (height, width, 3) in BGR '
                    'order is needed.'
                )
            load, source = self.take, dict[str, object](img=image)
        elif '://' not in name and not Path(name).is_file():
            raise UnreadableImage(f'There is no image {name}.')
        else:
            load, source = self.load, dict(img_path=name)
        try:
            read = load(source)
        except Exception as error:  # each decoder has its own
            reason = ' '.join(str(error).split())  # in one line
            raise UnreadableImage(f'{name} cannot be read as an image: {reason}') from error
        pixels = read['img']
        data = self.transform(dict(read, img_id=index))
        size = pixels.shape[:2]
        check_only_resized(data['data_samples'].metainfo, size)
        return PreparedImage(index, name, size, data, pixels)

    def decode(self, content: bytes) -> np.ndarray | None:
        """The content of a file as (h, w, 3) uint8 in BGR order, read as files are; None: no image.

        Some broken files raise errors of the decoder's own.
        """
        return mmcv.imfrombytes(content, **self._decoding)


def list_images(inputs: Image | Sequence[Image]) -> list[Image]:
    """Inputs as a list; a folder, also one of several inputs, as its images, by name.

    What is left out of a folder is told: other files, hidden ones, and folders in it.

    Raises:
        FileNotFoundError: a folder has no image.
    """
    if isinstance(inputs, list | tuple):
        return [image for item in inputs for image in list_images(item)]
    name = describe(inputs, '://')  # type: ignore[arg-type]  # refuses what is no image
    if '://' in name or not Path(name).is_dir():
        return [inputs]  # type: ignore[list-item]
    entries = sorted(Path(name).iterdir())
    found = [path for path in entries if _is_image(path)]
    taken = set(found)
    others = [path.name + '/' * path.is_dir() for path in entries if path not in taken]
    said = f'{len(others)} left out, which are no images: {some(others)}'
    if not found:
        said = said if others else 'it is empty'
        raise FileNotFoundError(f'The folder {inputs} has no image: {said}.')
    if others:
        print_log(f'{inputs}: {said}', 'current', logging.WARNING)
    return [*found]


def _is_image(path: Path) -> bool:
    """Whether a file is, or should be, an image; macOS hides '._1.jpg', which is none."""
    if path.name.startswith('.') or not path.is_file():
        return False
    is_text = (mimetypes.guess_type(path)[0] or '').startswith('text')  # 'BM…' begins a bitmap
    known = path.suffix.lower() in IMAGE_SUFFIXES
    return known or (not is_text and cv2.haveImageReader(str(path)))


def same_size_batches(
    images: Iterable[PreparedImage], batch_size: int
) -> Iterator[list[PreparedImage]]:
    """Batches of images whose network inputs have one size, in order, none held back for long.

    Raises:
        ValueError: ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f'batch_size must be at least 1, got {batch_size}.')
    waiting: dict[tuple, list[PreparedImage]] = defaultdict(list)
    for image in images:
        size = tuple(image.data['inputs'].shape[-2:])
        waiting[size].append(image)
        if len(waiting[size]) == batch_size:
            yield waiting.pop(size)
        elif sum(map(len, waiting.values())) >= _MOST_WAITING * batch_size:
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


def picture_names(images: Sequence[Image]) -> list[str]:
    """A file name of its own for each image, '*.jpg', whatever folders they lie in."""
    stems: dict[str, None] = {}  # in order
    for index, image in enumerate(images):
        stem = Path(describe(image, f'{index:08d}').split('?')[0]).stem
        while stem in stems:
            stem = f'{stem}_{index}'
        stems[stem] = None
    return [f'{stem}.jpg' for stem in stems]
