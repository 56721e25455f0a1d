"""Pictures that somebody sends: what is accepted, before anything is decoded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import mmcv
import numpy as np
from PIL import Image

FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP')
_LONGEST_NAME = 120  # characters

Decode = Callable[[bytes], np.ndarray | None]


@dataclass(frozen=True)
class Picture:
    """A picture as it was sent; decoded anew for each use, since pixels take far more memory.

    Attributes:
        name: of the file, without folders.
        content: the file.
        size: height and width in pixels, turned as the file says (EXIF).
    """

    name: str
    content: bytes
    size: tuple[int, int]


def decoder_like(loader: Any) -> Decode:
    """How file contents become pixels: as mmcv's ``LoadImageFromFile`` reads files.

    Boxes and detections then are those of the other tools, to the pixel.

    Returns:
        A function from bytes to (h, w, 3) uint8 in BGR order.
    """
    return partial(mmcv.imfrombytes, flag=loader.color_type, backend=loader.imdecode_backend)


def read_upload(name: str, content: bytes, max_side: int, decode: Decode) -> Picture:
    """Check a file and find out its size.

    Args:
        name: of the file, as the browser gave it.
        content: of the file.
        max_side: most pixels of its longer side. Looked up in the file's header: a small file may
            unpack to more pixels than there is memory.
        decode: see :func:`decoder_like`.

    Raises:
        ValueError: it cannot be used.
    """
    name = clean_name(name)
    _check(name, content, max_side)
    try:
        pixels = decode(content)
    except Exception as error:  # each decoder has its own
        raise ValueError(f'{name} is damaged: {error}.') from error
    if pixels is None:
        raise ValueError(f'{name} is damaged: it cannot be decoded.')
    return Picture(name, content, pixels.shape[:2])


def _check(name: str, content: bytes, max_side: int) -> None:
    """Refuse other formats, too many pixels, and files that end early or are garbled."""
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f'{name} has too many pixels to be opened safely.') from error
    except Exception as error:  # whatever a header can be wrong in
        raise ValueError(
            f'{name} is not a picture that can be read: JPEG, PNG, WebP and BMP can.'
        ) from error
    if max(image.size) > max_side:
        width, height = image.size
        raise ValueError(
            f'{name} is {width} x {height} pixels; the longer side may have {max_side} '
            '(the server was started with this --max-side).'
        )
    try:
        image.load()  # stricter than OpenCV, which fills what is missing with grey
    except Exception as error:
        raise ValueError(f'{name} is damaged: {error}.') from error


def clean_name(name: str) -> str:
    """A file name without folders and control characters, of bearable length."""
    name = re.sub(r'[\x00-\x1f\x7f]', '', re.split(r'[\\/]', name)[-1]).strip()
    return name[-_LONGEST_NAME:] or 'picture'
