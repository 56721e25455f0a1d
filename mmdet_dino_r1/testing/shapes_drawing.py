"""Drawing of the *shapes* set: objects on clutter.

Every object of a class is the class's appearance under a random rotation, size, stretch and light.

Images are float32 BGR ``(size, size, 3)`` in [0, 255] while they are drawn. Boxes are float
``(x1, y1, x2, y2)`` in pixels, tight around visible pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .shapes_classes import PROFILE_ANGLES, ShapeClass, hsv_to_bgr, random_colour

# Bits of sub-pixel precision that cv2's drawing takes.
_SHIFT = 4


@dataclass(frozen=True)
class ShapesDifficulty:
    """All that makes the set harder or easier; ValueError for the last two out of range.

    Pairs are the ends of a uniform range. Sizes are shares of the image side, so a set keeps its
    look when the image size changes.
    """

    # smallest distance of two classes, in [0, 3]: a point each for texture, outline and colours;
    # near duplicates and their originals are closer
    class_distance: float = 1.5
    object_side: tuple[float, float] = (0.14, 0.375)  # the longer one
    objects_per_image: tuple[int, int] = (2, 8)  # tried
    classes_per_image: int = 5  # that its objects are drawn from
    max_overlap: float = 0.3  # of two boxes, as a share of the smaller one
    # smallest visible share of an object; what would hide more is not drawn, so that no object
    # goes unannotated
    min_visible: float = 0.6
    stretch: float = 0.15  # largest relative change of width against height
    hue_jitter: float = 7.0  # degrees of hue, either way
    light_jitter: float = 0.15  # relative change of brightness and of contrast
    clutter: tuple[int, int] = (8, 18)  # blobs, lines and rings behind the objects
    occluders: tuple[int, int] = (0, 2)  # thin lines in front of the objects
    blur: tuple[float, float] = (0.0, 0.6)  # sigma at 128 pixels; scales with the image size
    noise: float = 5.0  # standard deviation, of 255
    # share of the classes, in [0, 0.5], that equal another one in all but texture, outline or
    # colours
    near_duplicates: float = 0.0
    distractors: tuple[int, int] = (0, 0)  # of classes never annotated, behind the annotated ones

    def __post_init__(self) -> None:
        if not 0 <= self.near_duplicates <= 0.5:
            told = f'must lie in [0, 0.5], got {self.near_duplicates}.'
            raise ValueError(f'ShapesDifficulty.near_duplicates {told}')
        least, most = self.distractors
        if not 0 <= least <= most:
            raise ValueError(
                'ShapesDifficulty.distractors must be (least, most) with 0 <= least <= most, '
                f'got {self.distractors}.'
            )


# What the set is drawn with, by name.
DIFFICULTIES = dict(
    standard=ShapesDifficulty(),
    # twins that one attribute tells apart, objects that are no class at all, crowds, and
    # every object in another pose, light and shade
    hard=ShapesDifficulty(
        object_side=(0.14, 0.4),
        objects_per_image=(2, 9),
        max_overlap=0.4,
        min_visible=0.55,
        stretch=0.25,
        light_jitter=0.2,
        occluders=(0, 3),
        near_duplicates=0.25,
        distractors=(0, 2),
    ),
)


# -------------------------------------------------------------- one object
@dataclass
class DrawnObject:
    """An object in the making; its window is h rows and w columns of the image."""

    label: int
    window: tuple[slice, slice]  # rows and columns that it lies in
    alpha: np.ndarray  # cover of each pixel in [0, 255], (h, w)
    colour: np.ndarray  # BGR, (h, w, 3)
    full_area: float  # pixels covered were the image larger and nothing in front
    visible: np.ndarray  # pixels that show it, bool (size, size)

    def box(self) -> tuple[float, float, float, float]:
        """Tight ``(x1, y1, x2, y2)`` around the visible pixels."""
        columns = np.flatnonzero(self.visible.any(axis=0))
        rows = np.flatnonzero(self.visible.any(axis=1))
        return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def draw_object(
    shape: ShapeClass, label: int, size: int, difficulty: ShapesDifficulty, rng: np.random.Generator
) -> DrawnObject | None:
    """Draw one object of a class at a random place; None if too much of it lies outside."""
    side = size * rng.uniform(*difficulty.object_side)
    angle = rng.uniform(0, 2 * np.pi)
    stretch = np.exp(rng.uniform(-1, 1) * np.log1p(difficulty.stretch))
    centre = rng.uniform(0.3 * side, size - 0.3 * side, 2)

    ways = [np.cos(PROFILE_ANGLES) * stretch, np.sin(PROFILE_ANGLES) / stretch]
    corners = shape.profile[:, None] * np.stack(ways, axis=1)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = corners @ rotation.T
    corners *= side / np.ptp(corners, axis=0).max()  # the longer side of the box is `side`

    alpha = np.zeros((size, size), np.uint8)
    points = np.round((corners + centre) * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(alpha, [points], 255, cv2.LINE_AA, _SHIFT)
    visible = alpha > 127
    x, y = corners.T
    full_area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    if visible.sum() < max(1.0, difficulty.min_visible * full_area):
        return None

    window = _window(alpha)
    columns, rows = (np.arange(part.start, part.stop) for part in window[::-1])
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1)  # (h, w, 2), x before y
    local = (pixels - centre) @ rotation / side  # about [-0.5, 0.5] inside
    share = _texture(shape.texture, shape.frequency, local)[..., None]
    first, second = _jitter_colours(shape.colours, difficulty, rng)
    colour = (1 - share) * first + share * second
    # light falls from one side, so the same paint is never the same twice
    slope = rng.uniform(-0.25, 0.25, 2)
    colour = colour * (1 + (local @ slope)[..., None])
    return DrawnObject(label, window, alpha[window], colour.astype(np.float32), full_area, visible)


def _texture(kind: str, frequency: float, local: np.ndarray) -> np.ndarray:
    """Share of the second colour in [0, 1] at ``(..., 2)`` object coordinates."""
    u, v = local[..., 0], local[..., 1]
    radius = np.sqrt(u * u + v * v)
    angle = np.arctan2(v, u)
    turn = 2 * np.pi * frequency
    if kind == 'plain':
        return np.zeros_like(u)
    if kind == 'graded':
        return np.clip(0.5 + 1.3 * u, 0, 1)
    wave = {
        'striped': lambda: np.sin(turn * u),
        'checked': lambda: np.sin(0.8 * turn * u) * np.sin(0.8 * turn * v),
        # more ground than dots, which tells it from the checks
        'dotted': lambda: np.cos(turn * u) * np.cos(turn * v) - 0.45,
        'ringed': lambda: np.cos(1.1 * turn * radius),
        'halved': lambda: 12 * u,
        'wavy': lambda: np.sin(turn * (u + 0.09 * np.sin(1.2 * turn * v))),
        'sectored': lambda: np.sin(3 * angle),
        'latticed': lambda: np.maximum(np.cos(turn * u), np.cos(turn * v)) - 0.7,
    }[kind]()
    return np.clip(0.5 + 2.5 * wave, 0, 1)  # soft edges, no aliasing


# --------------------------------------------------------------- one image
def draw_image(
    classes: Sequence[ShapeClass],
    labels: Sequence[int],
    size: int,
    difficulty: ShapesDifficulty,
    rng: np.random.Generator,
    distractor_classes: Sequence[ShapeClass] = (),
) -> tuple[np.ndarray, list[DrawnObject]]:
    """Draw an image, uint8 BGR ``(size, size, 3)``, with objects on clutter.

    Labels point into the classes. An object for which no free place is found is left out; the
    first always fits. Distractors may lie around without being an object to find.
    """
    image = _draw_background(size, difficulty, rng)
    if distractor_classes:
        for _ in range(rng.integers(*difficulty.distractors, endpoint=True)):
            index = int(rng.integers(len(distractor_classes)))
            drawn = draw_object(distractor_classes[index], index, size, difficulty, rng)
            if drawn is not None:
                _blend(image[drawn.window], drawn.alpha, drawn.colour)
    objects: list[DrawnObject] = []
    for label in labels:
        new = _place(classes[label], label, objects, size, difficulty, rng)
        if new is None:
            continue
        for other in objects:
            other.visible &= ~new.visible
        objects.append(new)
        _blend(image[new.window], new.alpha, new.colour)

    for _ in range(rng.integers(*difficulty.occluders, endpoint=True)):
        cover = _draw_line(size, rng)
        colour = random_colour(rng)
        shown = [drawn.visible & (cover <= 127) for drawn in objects]
        if all(
            visible.sum() >= difficulty.min_visible * drawn.full_area
            for visible, drawn in zip(shown, objects, strict=True)
        ):
            for visible, drawn in zip(shown, objects, strict=True):
                drawn.visible = visible
            _blend(image, cover, colour)

    sigma = rng.uniform(*difficulty.blur) * size / 128
    if sigma > 0.1:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    image = image + difficulty.noise * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.round(image), 0, 255).astype(np.uint8), objects


def _place(
    shape: ShapeClass,
    label: int,
    objects: Sequence[DrawnObject],
    size: int,
    difficulty: ShapesDifficulty,
    rng: np.random.Generator,
) -> DrawnObject | None:
    """Draw an object where it hides too little of the others to matter."""
    # With nothing else in the image a place is always found in the end.
    for _ in range(12 if objects else 1000):
        new = draw_object(shape, label, size, difficulty, rng)
        if new is not None and all(
            _cover(new.box(), other.box()) <= difficulty.max_overlap
            and (other.visible & ~new.visible).sum() >= difficulty.min_visible * other.full_area
            for other in objects
        ):
            return new
    return None


def _cover(one: Sequence[float], other: Sequence[float]) -> float:
    """Share of the smaller of two ``xyxy`` boxes that both cover."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(0.0, width) * max(0.0, height) / smaller


# ---------------------------------------------------------------- clutter
def _draw_background(
    size: int, difficulty: ShapesDifficulty, rng: np.random.Generator
) -> np.ndarray:
    """A slow gradient with blobs, rings, lines and patches of noise."""
    base = rng.uniform(60, 190) + rng.uniform(-45, 45, (4, 4, 3))
    image = cv2.resize(base.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(*difficulty.clutter, endpoint=True)):
        kind = rng.integers(4)
        colour = random_colour(rng)
        cover = _draw_line(size, rng) if kind == 0 else _draw_ellipse(size, kind != 2, rng)
        if kind == 3:  # speckle inside a soft blob
            grain = rng.random((size // 3 + 1, size // 3 + 1), np.float32)
            cover[cv2.resize(grain, (size, size)) < 0.5] = 0
        _blend(image, cover, colour, strength=rng.uniform(0.25, 0.8))
    return image


def _blend(image: np.ndarray, cover: np.ndarray, colour: np.ndarray, strength: float = 1.0) -> None:
    """Paint over a float32 ``(h, w, 3)`` image, in place, with one colour or one per pixel."""
    window = _window(cover)
    if colour.ndim == 3:
        colour = colour[window]
    share = cover[window][..., None] * np.float32(strength / 255)
    image[window] += (colour - image[window]) * share


def _window(cover: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around all that is not 0."""
    x, y, width, height = cv2.boundingRect(cover)
    return slice(y, y + height), slice(x, x + width)


def _draw_line(size: int, rng: np.random.Generator) -> np.ndarray:
    """Cover of a thin line, uint8 ``(size, size)``."""
    cover = np.zeros((size, size), np.uint8)
    ends = np.round(rng.uniform(0, size, (2, 2)) * 2**_SHIFT).astype(int)
    thickness = max(1, round(size / 128 * rng.uniform(1, 2.6)))
    cv2.line(cover, ends[0].tolist(), ends[1].tolist(), 255, thickness, cv2.LINE_AA, _SHIFT)
    return cover


def _draw_ellipse(size: int, filled: bool, rng: np.random.Generator) -> np.ndarray:
    """Cover of a soft blob or of a ring, uint8 ``(size, size)``."""
    cover = np.zeros((size, size), np.uint8)
    centre = np.round(rng.uniform(0, size, 2) * 2**_SHIFT).astype(int)
    axes = np.round(rng.uniform(0.04, 0.2, 2) * size * 2**_SHIFT).astype(int)
    thickness = -1 if filled else max(1, round(size / 64))
    turn = float(rng.uniform(0, 180))
    look = (255, thickness, cv2.LINE_AA, _SHIFT)
    cv2.ellipse(cover, centre.tolist(), axes.tolist(), turn, 0, 360, *look)
    return cv2.GaussianBlur(cover, (0, 0), size / 50) if filled else cover


def _jitter_colours(
    colours: np.ndarray, difficulty: ShapesDifficulty, rng: np.random.Generator
) -> np.ndarray:
    """Both colours under one change of hue, brightness and contrast."""
    hsv = cv2.cvtColor(np.float32(colours)[None] / 255, cv2.COLOR_BGR2HSV)[0]
    hsv[:, 0] = (hsv[:, 0] + difficulty.hue_jitter * rng.uniform(-1, 1)) % 360
    bgr = hsv_to_bgr(hsv)
    brightness, contrast = 1 + difficulty.light_jitter * rng.uniform(-1, 1, 2)
    middle = bgr.mean(axis=0)
    return np.clip(brightness * (middle + contrast * (bgr - middle)), 0, 255)
