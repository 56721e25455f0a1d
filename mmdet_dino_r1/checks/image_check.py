"""What is wrong with the image files of a set, as the loader of its pipeline reads them.

Before training only headers are read. What the loader makes of files of one kind (format, bits,
orientation) is learnt from a few of them, so that no decoder's habits are written down here.
"""

from __future__ import annotations

import os
import random
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import cv2
import numpy as np
from mmdet.registry import TRANSFORMS
from PIL import ExifTags, Image

from ..config.tree import type_name
from .annotation_table import AnnotationTable
from .data_problem import EXAMPLES, Problem, problems

# Before training: files looked at, and seconds for the headers and for what is decoded.
MOST_FILES, SECONDS = 20_000, 10
DECODED = 6  # of each kind
HUGE = 50_000_000  # pixels of an image that is decoded alone, for the memory's sake
FEW_VALUES = 64  # of 256; a loader that leaves fewer is told
PLAIN = dict(type='LoadImageFromFile')
# Ways to load a photograph, in one of which it may have the size annotated.
_WAYS = (
    dict(color_type='color_ignore_orientation'),
    dict(color_type='color'),
    dict(imdecode_backend='pillow'),
)
Load = Callable[[str], 'np.ndarray | None']
Size = tuple[int, int]  # (width, height)


class _Header(NamedTuple):
    """What PIL reads without decoding; of what it does not know, the suffix is the format."""

    size: Size | None  # of a TIFF, turned or not
    format: str
    mode: str = ''
    is_deep: bool = True  # perhaps more than eight bits a value
    orientation: int = 1  # of EXIF, 1 to 8; from 5 on, width and height are swapped


def check_images(
    table: AnnotationTable,
    folder: str,
    loader: dict = PLAIN,
    each: bool = False,
    rows: Iterable[int] | None = None,
    level: str = '',
) -> list[Problem]:
    """Look at the headers of the image files below ``folder``, or read ``each`` to its end.

    Args:
        table: whose files and sizes they are.
        folder: where they lie.
        loader: first step of the pipeline that reads them.
        each: read all with the loader.
        rows: of the images that matter; None for all.
        level: of unreadable files, if another than usual.
    """
    rows = range(len(table.files)) if rows is None else sorted(rows)
    row_of = {os.path.join(folder, table.files[row]): row for row in rows if table.files[row]}
    headers = _headers(list(row_of), each)
    missing = [path for path, header in headers.items() if header is None]
    so = _found_instead(table.files[row_of[missing[0]]], folder) if missing else ''
    found = problems('image_missing', table.path, missing, of=len(headers), so=so)
    headers = {path: header for path, header in headers.items() if header}
    if (load := _reader(loader)) is None:
        return found  # the check of the config says why
    kinds = defaultdict(list)
    for path, header in headers.items():
        kinds[header._replace(size=None)].append(path)
    said = {path: tuple(table.sizes[row_of[path]].tolist()) for path in headers}
    sizes = _sizes(headers, kinds, said, load, each)

    told = set()  # kinds that this loader cannot read, but another
    has_range = type_name(loader) == 'LoadScaledImage'  # chosen by the user
    for kind, paths in kinds.items():
        if kind.is_deep and not has_range and (words := _values(paths, load)):
            told |= set() if words['is_read'] else {kind}
            how_bad = 'warning' if words['is_read'] else level
            found += problems('image_deep', table.path, paths, level=how_bad, **words)
    broken, differing, turned = [], [], []
    for path, size in sizes.items():
        kind = headers[path]._replace(size=None)
        if size is None:
            broken += [path] * (kind not in told)
        elif size != said[path] and min(said[path]) > 0:
            swaps = kind.orientation >= 5 and size == said[path][::-1]
            (turned if swaps else differing).append(path)

    def tell(path: str) -> str:
        return '{}: {}x{}, not {:g}x{:g}'.format(path, *sizes[path], *said[path])

    so = _other_way(loader, broken)
    words = dict(why=_reason(loader, broken[0]) if broken else '', so=so and f', or {so}')
    found += problems('image_broken', table.path, broken, level=level, **words)
    found += problems('image_size_differs', table.path, differing, tell)
    so = _other_way(loader, turned, said) or 'write the files anew in that size, without the tag'
    found += problems('image_turned', table.path, turned, tell, so=so)
    swapped = [header.size for header in headers.values() if header.orientation >= 5]
    if all(width == height for width, height in swapped):  # else it shows how they were annotated
        upside_down = [path for path, header in headers.items() if header.orientation > 1]
        found += problems('image_upside_down', table.path, upside_down)
    return found


def _found_instead(file: str, folder: str) -> str:
    """What the folder has in place of a missing file, under another path or suffix."""
    parts = unquote(file).replace('\\', '/').split('/')
    for start in range(len(parts)):
        wanted = Path(folder, *parts[start:])
        stem, there = wanted.stem.casefold(), wanted.parent
        for path in there.iterdir() if there.is_dir() else ():
            if path.stem.casefold() == stem:
                return f' There is {os.path.relpath(path, folder)} in {folder or "."}.'
    return ''


def _headers(paths: list[str], each: bool) -> dict[str, _Header | None]:
    """Of ``each`` or of as many as fit the limits, drawn evenly, in order; None for no file."""
    looked_at = paths if each else random.Random(0).sample(paths, min(len(paths), MOST_FILES))
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # nothing is decoded
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # PIL's, of odd headers
            found = _in_time(_header, looked_at, each)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return {path: found[path] for path in paths if path in found}


def _header(path: str) -> _Header | None:
    if not os.path.isfile(path):
        return None
    try:
        with Image.open(path) as image:
            # a PNG's own method would decode it
            turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
            is_deep = image.mode[0] in 'IF' or ';16' in repr(image.tile)
            orientation = turned if turned in range(1, 9) else 1
            return _Header(image.size, image.format, image.mode, is_deep, orientation)
    except Exception:  # it has many; the loader decides
        return _Header(None, os.path.splitext(path)[1])


def _reader(loader: dict) -> Load | None:
    """The loader as a function of a path, which gives None for what cannot be read."""
    try:
        transform = TRANSFORMS.build(dict(loader))
    except Exception:  # there is no such type, or no such argument
        return None

    def load(path: str) -> np.ndarray | None:
        try:
            return transform(dict(img_path=path))['img']
        except Exception:  # each decoder has its own
            return None

    return load


def _reason(loader: dict, path: str) -> str:
    """What the loader says of a file that it cannot read, such as that a decoder is missing."""
    try:
        TRANSFORMS.build(dict(loader))(dict(img_path=path))['img']
    except Exception as error:
        return ' '.join(str(error).split())[:200]
    return ''


def _sizes(
    headers: dict[str, _Header],
    kinds: dict[_Header, list[str]],
    said: dict[str, tuple[float, float]],
    load: Load,
    each: bool,
) -> dict[str, Size | None]:
    """Sizes as loaded, in order, None for what cannot be read.

    Unless ``each`` is read, they are concluded from a few of each kind, and what would not agree
    with what is ``said`` is read.
    """

    def decode(paths: list[str]) -> dict[str, Size | None]:
        huge = {path: None for path in paths if np.prod(headers[path].size or 0) > HUGE}
        others, size = [path for path in paths if path not in huge], partial(_size, load)
        return _in_time(size, others, each) | _in_time(size, list(huge), each, at_once=1)

    some = [_some(paths) if headers[paths[0]].size else paths for paths in kinds.values()]
    sizes = decode(list(headers) if each else sum(some, []))
    concluded = {}
    for paths in kinds.values():
        seen = {path: sizes[path] for path in paths if path in sizes}
        pairs = [(headers[path].size, size) for path, size in seen.items()]
        turned = any(size and size == stored[::-1] != stored for stored, size in pairs if stored)
        for path in paths:
            if seen and path not in seen and (stored := headers[path].size):
                as_read = stored[::-1] if turned else stored
                concluded[path] = as_read if any(seen.values()) else None
    doubtful = [path for path, size in concluded.items() if size and size != said[path]]
    sizes = concluded | decode(doubtful) | sizes
    return {path: sizes[path] for path in headers if path in sizes}


def _size(load: Load, path: str) -> Size | None:
    image = load(path)
    return None if image is None else image.shape[1::-1]


def _values(paths: list[str], load: Load) -> dict[str, Any]:
    """What becomes of the values of such files, where the loader cannot read or narrows them."""
    limits = [item for item in _in_time(partial(_limits, load), _some(paths)).values() if item]
    if not limits:
        return {}
    bits, stored, loaded = zip(*limits, strict=True)
    loaded = [item for item in loaded if item is not None]
    low, high = np.min(stored), np.max(stored)
    words = dict(bits=bits[0], low=f'{low:.6g}', high=f'{high if high > low else low + 1:.6g}')
    if not loaded:
        return dict(words, is_read=False, so='the loader cannot read them')
    so = f'the loader makes them {np.min(loaded)} to {np.max(loaded)} of 255'
    is_narrow = np.ptp(loaded) < FEW_VALUES
    return dict(words, is_read=True, so=so) if is_narrow else {}


def _limits(load: Load, path: str) -> tuple[int, np.ndarray, np.ndarray | None] | None:
    """Bits, lowest and highest value, as stored and as loaded, but for one pixel in a thousand."""
    stored = cv2.imread(path, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if stored is None or stored.dtype == np.uint8:
        return None  # unreadable, or not deep
    image = load(path)
    if image is not None and image.dtype != np.uint8:
        return None  # the loader leaves them as they are

    def limits(values: np.ndarray) -> np.ndarray:
        return np.nanpercentile(values[::5, ::5], (0.1, 99.9), method='nearest')

    return 8 * stored.itemsize, limits(stored), None if image is None else limits(image)


def _other_way(loader: dict, paths: list[str], said: dict | None = None) -> str:
    """How to load such files, of the size that is ``said`` if any; it was tried on some of them."""
    examples = paths[:EXAMPLES]
    for way in _WAYS if paths else ():
        load = _reader(dict(loader, **way)) or (lambda path: None)
        sizes = [_size(load, path) for path in examples]
        if all(sizes) and (not said or sizes == [said[path] for path in examples]):
            ((key, value),) = way.items()
            return f'set {key}={value!r} in the first step of the pipelines, which loads them so'
    return ''


def _in_time(
    work: Callable, paths: Sequence[str], each: bool = False, at_once: int | None = None
) -> dict[str, Any]:
    """What ``work`` gives for each path, in order; for those that the time allows, or ``each``."""
    found, end = {}, time.monotonic() + SECONDS
    pool = ThreadPoolExecutor(at_once)  # reading and decoding release the interpreter's lock
    try:
        for path, result in zip(paths, pool.map(work, paths), strict=True):
            found[path] = result
            if not each and time.monotonic() > end:
                break
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _some(paths: list[str]) -> list[str]:
    """At most ``DECODED`` of them, evenly."""
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), DECODED)).astype(int)]
