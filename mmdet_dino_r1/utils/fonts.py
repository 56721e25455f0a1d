"""Names in any script on pictures: a font that has their letters, and text written with it.

matplotlib's own font has no Chinese, Japanese, Korean, Thai or Hindi. Another is chosen by what is
in it, that of the package below before the system's. matplotlib and Pillow are imported when a
picture is drawn.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

_PACKAGE = 'noto-cjk-sans-jp-regular'  # on PyPI: one font file
# Faces that are taken after the regular sans-serif ones, by the names of their files.
_SPECIAL = re.compile(
    'bold|light|thin|black|italic|oblique|serif|mono|condensed|-vf', re.IGNORECASE
)


def drawable(names: Sequence[str]) -> list[str]:
    """The names, but ``class 3`` for one with letters that no font has."""
    _, lacking = _font_for(frozenset(''.join(names)))
    return [name if lacking.isdisjoint(name) else f'class {i}' for i, name in enumerate(names)]


def legible(names: Sequence[str]) -> list[str]:
    """The drawable names as matplotlib takes them, with a font for them from now on."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    path, _ = _font_for(frozenset(''.join(names)))
    family = FontProperties(fname=path).get_name()
    others = [other for other in rcParams['font.sans-serif'] if other != family]
    rcParams['font.sans-serif'] = [family, *others]
    return [name.replace('$', r'\$') for name in drawable(names)]  # between two it reads formulas


def write_texts(
    image: np.ndarray, texts: Sequence[tuple], outline: tuple[int, int, int] | None = None
) -> np.ndarray:
    """A copy of an image, (h, w, 3) uint8, with texts on it.

    A text is (left, top, text, size, colour), in pixels, its first baseline ``size`` below the top,
    whatever the font. Colours are in the order of the image's channels.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    path, _ = _font_for(frozenset(''.join(text for _, _, text, *_ in texts)))
    look = dict(anchor='ls', stroke_width=int(outline is not None), stroke_fill=outline)
    for left, top, text, size, colour in texts:
        font = ImageFont.truetype(path, size)
        draw.text((left, top + size), text, font=font, fill=colour, **look)
    return np.asarray(picture).copy()


@cache
def _font_for(letters: frozenset[str]) -> tuple[str, frozenset[str]]:
    """File of the first font that has all letters, else most, and those that it lacks, told."""
    from matplotlib.font_manager import fontManager

    needed = {letter for letter in letters if letter.isprintable() and not letter.isspace()}
    best, lacking = '', needed
    for path in _fonts():
        without = _lacking(path, needed)
        if not best or len(without) < len(lacking):
            best, lacking = path, without
        if not lacking:
            break
    fontManager.addfont(best)
    if lacking:
        print_log(
            f'No font here has {"".join(sorted(lacking)[:20])}: pictures show "class 3" and the '
            f'like, or squares, in place of such names. Remedy: `pip install {_PACKAGE}` for '
            'Chinese, Japanese and Korean, or a font of the system that has all the names.',
            logger='current',
            level=logging.WARNING,
        )
    return best, frozenset(lacking)


def _fonts() -> Iterator[str]:
    """Files of fonts: matplotlib's, the package's, the system's, regular sans-serif ones first."""
    from matplotlib.font_manager import findSystemFonts

    yield _usual_font()
    yield from map(str, package_fonts())
    # LastResort is a Mac's, which has squares for all letters
    yield from sorted(
        (path for path in findSystemFonts() if 'LastResort' not in path),
        key=lambda path: (bool(_SPECIAL.search(Path(path).stem)), 'Sans' not in path, path),
    )


def package_fonts() -> list[Path]:
    """Files of the package's fonts, none where it is not installed."""
    package = find_spec(_PACKAGE.replace('-', '_'))
    folders = package.submodule_search_locations if package else ()
    return [path for folder in folders for path in Path(folder).glob('*.otf')]


@cache  # as it was before another was put first
def _usual_font() -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return findfont(FontProperties(family=['sans-serif']))


def _lacking(path: str, letters: Iterable[str]) -> set[str]:
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
    except (OSError, RuntimeError):  # damaged, or of a kind that matplotlib cannot draw
        return set(letters)
    # bitmaps, mostly emoji, have no outline to draw
    return {
        letter for letter in letters if not (font.scalable and font.get_char_index(ord(letter)))
    }
