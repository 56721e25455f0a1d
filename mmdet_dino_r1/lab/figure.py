"""What every picture of the laboratory needs: colours, an empty figure, its pixels, a file.

An image is RGB, uint8 ``(height, width, 3)``. matplotlib is imported inside functions only,
because the package is imported for every training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..utils.fonts import legible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#555555')


def run_colour(place: int) -> str:
    """Colour of the n-th run or model of a figure; they repeat."""
    return RUN_COLOURS[place % len(RUN_COLOURS)]


def new_figure(width: float, height: float, dpi: int = 110) -> Figure:
    """An empty figure of a width and height in inches, and dpi, whose panels do not overlap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def rendered(figure: Figure) -> np.ndarray:
    """The pixels of a figure of :func:`new_figure`."""
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if text.get_text()]
    for text in texts:
        text.set_parse_math(False)  # names, not formulas
    # in which font; the minus is that of tick labels, which are made as they are drawn
    legible(['−', *(text.get_text() for text in texts)])
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write an image to a path, whose folder is made; OSError: it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        written = cv2.imwrite(str(path), image[..., ::-1])
    except cv2.error:
        written = False
    if not written:
        raise OSError(f'Could not write {path}.')
    return path
