"""Pictures that somebody sends: what is accepted, before anything is decoded."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP')
_LONGEST_NAME = 120  # characters

Decode = Callable[[bytes], np.ndarray | None]  # to (h, w, 3) uint8 in BGR order


class Picture(NamedTuple):
    """A picture's file as it was sent; decoded for each use, since pixels take far more memory."""

    name: str  # without folders
    content: bytes
    size: tuple[int, int]  # height and width, turned as the file says (EXIF)


def read_upload(name: str, content: bytes, max_side: int, decode: Decode) -> Picture:
    """Check a file and find out its size; its name loses folders and control characters.

    The longer side is looked up in the header first: a small file may unpack to more pixels than
    there is memory.

    Raises:
        ValueError: another format, too many pixels, or a file that ends early or is garbled.
    """
    name = re.sub(r'[\x00-\x1f\x7f]', '', re.split(r'[\\/]', name)[-1]).strip()
    name = name[-_LONGEST_NAME:] or 'picture'
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
        pixels = decode(content)
    except Exception as error:  # each decoder has its own
        raise ValueError(f'{name} is damaged: {error}.') from error
    if pixels is None:
        raise ValueError(f'{name} is damaged: it cannot be decoded.')
    return Picture(name, content, pixels.shape[:2])
