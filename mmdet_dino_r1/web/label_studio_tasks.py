"""What Label Studio has: a labeling config, rectangles, images and annotated tasks.

Its rectangles are (x, y, width, height) in per cent of the image's sides, upper left corner first.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from math import cos, radians, sin
from pathlib import Path
from string import punctuation
from typing import NamedTuple, TypeAlias
from urllib.error import HTTPError
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import Request, urlopen
from xml.etree import ElementTree

_PATIENCE = 60  # seconds for an answer; Label Studio itself waits 100 for ours
RECTANGLE = 'rectanglelabels'  # type of a region, and the key of its labels


# An object's box (x1, y1, x2, y2) in pixels, label and score.
Found: TypeAlias = tuple[Sequence[float], str, float]


class LabelConfig(NamedTuple):
    """The rectangles of a labeling config: names of their tag and the image's, and the labels.

    ``data_key``: where a task's data have the image.
    """

    from_name: str
    to_name: str
    data_key: str
    labels: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> LabelConfig:
        """Read the XML.

        Raises:
            ValueError: it is none, or has no RectangleLabels with labels for an Image.
        """
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise ValueError(f'The labeling config is no XML: {error}.') from error
        images = {tag.get('name'): tag.get('value', '') for tag in root.iter('Image')}
        for tag in root.iter('RectangleLabels'):
            labels = tuple(label.get('value', '') for label in tag.iter('Label'))
            if labels and (image := tag.get('toName')) in images:
                return cls(tag.get('name'), image, images[image].removeprefix('$'), labels)
        raise ValueError(
            'The labeling config has no <RectangleLabels> with labels for an <Image>: in the '
            'project\'s settings choose the template "Object Detection with Bounding Boxes".'
        )

    def boxes(
        self, regions: Sequence[Mapping], size: tuple[int, int]
    ) -> tuple[list[tuple[float, ...]], list[str]]:
        """Boxes (x1, y1, x2, y2) in pixels, of an image of ``size`` (h, w), and their labels."""
        rectangles = [
            region['value']
            for region in regions
            if region['from_name'] == self.from_name and region['value'].get(RECTANGLE)
        ]
        boxes = [upright_box(value, size) for value in rectangles]
        return boxes, [value[RECTANGLE][0] for value in rectangles]

    def prediction(self, found: Sequence[Found], size: tuple[int, int], version: str) -> dict:
        """What was found in an image of ``size`` (h, w), as a prediction of a model's version.

        Its score, by which tasks can be sorted, is the mean of its regions'; 0 without any.
        """
        regions = [self._region(*one, size) for one in found]
        mean = sum(score for *_, score in found) / max(len(found), 1)
        return dict(result=regions, score=mean, model_version=version)

    def _region(
        self, box: Sequence[float], label: str, score: float, size: tuple[int, int]
    ) -> dict:
        (x1, y1, x2, y2), (height, width) = box, size
        value = dict(
            x=100 * x1 / width,
            y=100 * y1 / height,
            width=100 * (x2 - x1) / width,
            height=100 * (y2 - y1) / height,
            rotation=0,
        )
        return dict(
            id=secrets.token_hex(5),
            type=RECTANGLE,
            from_name=self.from_name,
            to_name=self.to_name,
            original_width=width,
            original_height=height,
            image_rotation=0,
            value=value | {RECTANGLE: [label]},
            score=score,
        )


def upright_box(value: Mapping, size: tuple[int, int]) -> tuple[float, ...]:
    """The box (x1, y1, x2, y2) in pixels around a rectangle, clipped to an image of (h, w).

    ``rotation``, if there is one, turns the rectangle clockwise about its upper left corner, by
    degrees; boxes are upright, so the one around it is larger.
    """
    height, width = size
    x, y = value['x'] / 100 * width, value['y'] / 100 * height
    right, down = value['width'] / 100 * width, value['height'] / 100 * height
    turn = radians(value.get('rotation') or 0)
    corners = [(0.0, 0.0), (right, 0.0), (0.0, down), (right, down)]
    xs = [min(max(x + a * cos(turn) - b * sin(turn), 0.0), width) for a, b in corners]
    ys = [min(max(y + a * sin(turn) + b * cos(turn), 0.0), height) for a, b in corners]
    return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True)
class LabelStudioServer:
    """Where images and annotations are fetched.

    Attributes:
        url: address of the Label Studio server; None: only what is reached without it is fetched.
        api_key: a user's personal access token, or a legacy token.
        root: folder of '/data/local-files/?d=…' on this machine, the server's
            ``LOCAL_FILES_DOCUMENT_ROOT``; None: these are fetched from the server, too.
    """

    url: str | None = None
    api_key: str | None = None
    root: Path | None = None

    def image(self, where: str) -> bytes:
        """The content of an image's file.

        Raises:
            ValueError: it cannot be fetched.
            OSError: a file of ``root`` cannot be read.
        """
        parts = urlsplit(where)
        if self.root is not None and parts.path.rstrip('/').endswith('/data/local-files'):
            (name,) = parse_qs(parts.query).get('d', [''])
            path = (self.root / name).resolve()
            if not path.is_relative_to(self.root.resolve()):
                raise ValueError(f'{where} lies outside of --root {self.root}.')
            return path.read_bytes()
        own = (self.url or '').rstrip('/') + '/'
        if where.startswith('/') or (self.url and where.startswith(own)):
            return self._get(where if where.startswith('/') else where[len(own) - 1 :])
        if parts.scheme in ('http', 'https'):
            return _read(Request(quote(where, safe=punctuation)))
        raise ValueError(
            f'{where} cannot be fetched: only uploads, local files and http(s) addresses can.'
        )

    def annotated_tasks(self, project: int) -> list[dict]:
        """The tasks of a project that have an annotation, with all their annotations.

        Raises:
            ValueError: they cannot be fetched.
        """
        return json.loads(self._get(f'/api/projects/{int(project)}/export?exportType=JSON'))

    def _get(self, path: str) -> bytes:
        """What the server has there."""
        if not self.url or not self.api_key:
            raise ValueError(
                f'{path} is on the Label Studio server, and --url or --api-key is missing: start '
                'with both.'
            )
        request = Request(self.url.rstrip('/') + quote(path, safe=punctuation))
        # A redirect, to a cloud storage say, must not be shown the token.
        request.add_unredirected_header('Authorization', self._authorization())
        return _read(request)

    def _authorization(self) -> str:
        """A personal access token is exchanged for one of five minutes; a legacy one serves."""
        if self.api_key.count('.') != 2:
            return f'Token {self.api_key}'
        body = json.dumps(dict(refresh=self.api_key)).encode()
        where = self.url.rstrip('/') + '/api/token/refresh/'
        answer = _read(Request(where, body, {'Content-Type': 'application/json'}))
        return f'Bearer {json.loads(answer)["access"]}'


def _read(request: Request) -> bytes:
    try:
        with urlopen(request, timeout=_PATIENCE) as answer:
            return answer.read()
    except (OSError, HTTPException) as error:
        refused = isinstance(error, HTTPError) and error.code in (401, 403)
        hint = '; is --api-key valid?' if refused else ''
        raise ValueError(f'{request.full_url} cannot be fetched: {error}{hint}') from error
