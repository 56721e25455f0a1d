"""Class definitions of the *shapes* set.

A class is an appearance: an outline, a texture and two colours. Base and novel classes are drawn
from one family and keep a distance from each other, so a few exemplars are enough to tell them
apart. A near duplicate, where asked for, shares two of the three with the class before it.

Names: a *profile* is an outline given by its radius at ``PROFILE_BINS`` equally spaced angles,
scaled to a mean of 1. Colours are BGR in [0, 255].
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

PROFILE_BINS = 72
OUTLINES = ('star', 'polygon', 'shard', 'flower', 'cross', 'pebble')
TEXTURES = (
    *('plain', 'striped', 'checked', 'dotted', 'ringed'),
    *('graded', 'halved', 'wavy', 'sectored', 'latticed'),
)
PROFILE_ANGLES = np.arange(PROFILE_BINS) * 2 * np.pi / PROFILE_BINS
# Row i of a profile indexed with it: the profile turned by i bins.
_ROTATIONS = np.add.outer(np.arange(PROFILE_BINS), np.arange(PROFILE_BINS)) % PROFILE_BINS
# Lab distance at which two colours count as wholly different, and the distance of outlines (root
# mean square of radii, mean radius 1).
_COLOUR_UNIT = 60.0
_OUTLINE_UNIT = 0.2
# Lab distance of the two colours of a class, so that its texture shows.
_CONTRAST = 45.0
# Smallest `class_distance` of a class and its near duplicate: the one attribute in which they
# differ must show under all jitter.
_SIBLING_DISTANCE = 0.6


@dataclass(frozen=True)
class ShapeClass:
    """The appearance of one class."""

    name: str  # unique, for example 'striped star 07'
    profile: np.ndarray  # (PROFILE_BINS,)
    texture: str  # one of TEXTURES
    frequency: float  # repeats of the texture over the object's side
    colours: np.ndarray  # (2, 3), equal for the plain texture


# -------------------------------------------------------------- the classes
def draw_classes(
    num_classes: int,
    min_distance: float,
    rng: np.random.Generator,
    near_duplicates: float = 0.0,
    apart_from: Sequence[ShapeClass] = (),  # others to keep the distance from
) -> list[ShapeClass]:
    """Draw class definitions, numbered from 1, that keep a distance from each other.

    The first ones do not depend on how many follow. A share of them, in [0, 0.5], are near
    duplicates: they equal the class before them in all but texture, outline or colours.

    Raises:
        ValueError: no room is left for another class.
    """
    classes: list[ShapeClass] = []
    for number in range(1, num_classes + 1):
        is_sibling = int(number * near_duplicates) > int((number - 1) * near_duplicates)
        parent = classes[-1] if is_sibling else None
        strangers = [other for other in (*apart_from, *classes) if other is not parent]
        for _ in range(500):
            candidate = _draw_class(number, rng)
            if parent is not None:
                candidate = _sibling(parent, candidate, rng)
                if class_distance(candidate, parent) < _SIBLING_DISTANCE:
                    continue
            if all(class_distance(candidate, other) >= min_distance for other in strangers):
                classes.append(candidate)
                break
        else:
            raise ValueError(
                f'Only {len(classes)} of {num_classes} shape classes fit with class_distance='
                f'{min_distance}; lower it or ask for fewer classes.'
            )
    return classes


def class_distance(one: ShapeClass, other: ShapeClass) -> float:
    """Distance of two appearances: texture + outline + colours, in [0, 3].

    Outlines are compared at their best relative rotation and mirroring; colours in Lab at the
    better of the two pairings, because stripes of a on b look like stripes of b on a.
    """
    texture = float(one.texture != other.texture)
    # (2 * PROFILE_BINS, PROFILE_BINS)
    turned = np.concatenate([other.profile[_ROTATIONS], other.profile[::-1][_ROTATIONS]])
    outline = np.sqrt(((turned - one.profile) ** 2).mean(axis=1)).min()
    lab_one, lab_other = to_lab(one.colours), to_lab(other.colours)
    colour = min(
        np.linalg.norm(lab_one - lab_other[order], axis=1).mean() for order in ([0, 1], [1, 0])
    )
    return texture + min(1.0, outline / _OUTLINE_UNIT) + min(1.0, colour / _COLOUR_UNIT)


def _draw_class(number: int, rng: np.random.Generator) -> ShapeClass:
    outline = str(rng.choice(OUTLINES))
    texture = str(rng.choice(TEXTURES))
    colours = np.stack([random_colour(rng)] * 2)
    while texture != 'plain' and np.linalg.norm(np.subtract(*to_lab(colours))) < _CONTRAST:
        colours[1] = random_colour(rng)
    profile, frequency = _draw_profile(outline, rng), float(rng.uniform(2.6, 3.6))
    return ShapeClass(f'{texture} {outline} {number:02d}', profile, texture, frequency, colours)


def _sibling(parent: ShapeClass, fresh: ShapeClass, rng: np.random.Generator) -> ShapeClass:
    """``parent`` with one attribute taken from ``fresh``, and its number."""
    texture, outline, _ = parent.name.split()
    fresh_texture, fresh_outline, number = fresh.name.split()
    # plain classes have one colour only: their texture cannot change alone
    textured = 'plain' not in (texture, fresh_texture)
    changed = rng.choice(['outline', 'colours', 'texture'] if textured else ['outline'])
    if changed == 'outline':
        outline, change = fresh_outline, dict(profile=fresh.profile)
    elif changed == 'texture':
        texture, change = fresh_texture, dict(texture=fresh.texture)
    else:
        change = dict(colours=fresh.colours)
    return replace(parent, name=f'{texture} {outline} {number}', **change)


def _draw_profile(outline: str, rng: np.random.Generator) -> np.ndarray:
    """Draw an outline of a kind as a profile, ``(PROFILE_BINS, )``."""
    if outline == 'star':
        radii = np.ones(2 * rng.integers(4, 8))
        radii[1::2] = rng.uniform(0.38, 0.58)
        profile = _polygon(radii)
    elif outline == 'polygon':
        profile = _polygon(np.ones(rng.integers(3, 6)))
    elif outline == 'shard':
        steps = rng.uniform(0.7, 1.3, rng.integers(5, 8))
        radii = rng.uniform(0.4, 1.1, len(steps))
        profile = _polygon(radii, np.cumsum(steps) / steps.sum() * 2 * np.pi)
    elif outline == 'flower':
        petals = rng.integers(3, 7)
        profile = 1 + rng.uniform(0.2, 0.32) * np.cos(petals * PROFILE_ANGLES)
    elif outline == 'cross':
        width = rng.uniform(0.26, 0.4)  # half the width of an arm
        ends = np.abs([np.cos(PROFILE_ANGLES), np.sin(PROFILE_ANGLES)])
        profile = np.minimum(1 / ends.max(axis=0), width / np.maximum(ends.min(axis=0), 1e-6))
    else:  # pebble: a smooth outline with two low harmonics
        phases = rng.uniform(0, 2 * np.pi, 2)
        profile = 1 + rng.uniform(0.15, 0.3) * np.cos(2 * PROFILE_ANGLES + phases[0])
        profile += rng.uniform(0.08, 0.18) * np.cos(3 * PROFILE_ANGLES + phases[1])
    return profile / profile.mean()


def _polygon(radii: np.ndarray, corner_angles: np.ndarray | None = None) -> np.ndarray:
    """Profile of a polygon given in polar corners, ``(corners, )``, by default equally spaced."""
    num = len(radii)
    if corner_angles is None:
        corner_angles = np.arange(num) * 2 * np.pi / num
    start = np.searchsorted(corner_angles, PROFILE_ANGLES, side='right') - 1
    end = (start + 1) % num
    span = (corner_angles[end] - corner_angles[start]) % (2 * np.pi)
    past = (PROFILE_ANGLES - corner_angles[start]) % (2 * np.pi)
    # the straight edge between two corners, in polar form
    edge = radii[start] * np.sin(past) + radii[end] * np.sin(span - past)
    return radii[start] * radii[end] * np.sin(span) / edge


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """A BGR colour in [0, 255], float32 ``(3, )``; few greys."""
    hsv = np.float32([rng.uniform(0, 360), rng.uniform(0.35, 1.0), rng.uniform(0.35, 1.0)])
    return hsv_to_bgr(hsv[None])[0]


def hsv_to_bgr(hsv: np.ndarray) -> np.ndarray:
    """``(n, 3)`` HSV (degrees, [0, 1], [0, 1]) to BGR in [0, 255]."""
    return cv2.cvtColor(np.float32(hsv)[None], cv2.COLOR_HSV2BGR)[0] * 255


def to_lab(bgr: np.ndarray) -> np.ndarray:
    """``(n, 3)`` BGR in [0, 255] to CIE Lab."""
    return cv2.cvtColor(np.float32(bgr)[None] / 255, cv2.COLOR_BGR2LAB)[0]
