"""What the server keeps for an open page, within bounds: pictures, prompts, results."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from math import isfinite
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from ..apis.reference_prompts import exemplar_boxes
from ..structures import PromptBank
from .uploads import Picture

if TYPE_CHECKING:
    from .improvement import Improvement

MOST_BOXES = 500
LONGEST_CLASS_NAME = 80  # characters


class SessionGone(LookupError):
    """The page is not, or no longer, known to the server."""


class DrawnBoxes(NamedTuple):
    """The boxes (x1, y1, x2, y2) on one picture, in pixels, and the class of each."""

    picture_id: str
    boxes: tuple[tuple[float, ...], ...]
    classes: tuple[str, ...]


class PagePrompts(NamedTuple):
    """All that a page asks for; equal prompts find the same."""

    references: tuple[DrawnBoxes, ...]
    distractors: tuple[str, ...]  # classes that only compete
    tuned: bool = False  # what the improvement of these boxes made of them


@dataclass
class PageSession:
    """State of one open page, which shows its token, a secret, with every request."""

    token: str
    max_pictures: int
    pictures: dict[str, Picture] = field(default_factory=dict)  # by id
    # boxes that were encoded last, and the prompts made of them
    encoded: tuple[tuple[DrawnBoxes, ...], PromptBank] | None = None
    # by picture id and whether tuned, what was found last, and with which prompts
    results: dict[tuple[str, bool], tuple[PagePrompts, dict]] = field(default_factory=dict)
    improvement: Improvement | None = None  # the last one that was started
    last_used: float = field(default_factory=time.monotonic)

    def add(self, picture: Picture) -> str:
        """Keep a picture; returns its id.

        Raises:
            ValueError: the page has as many as it may.
        """
        if len(self.pictures) >= self.max_pictures:
            raise ValueError(
                f'A page holds at most {self.max_pictures} pictures; remove some first.'
            )
        picture_id = secrets.token_hex(4)
        self.pictures[picture_id] = picture
        return picture_id

    def remove(self, picture_id: str) -> None:
        """Forget a picture, and what was found in it."""
        self.pictures.pop(picture_id, None)
        for tuned in (False, True):
            self.results.pop((picture_id, tuned), None)

    def picture(self, picture_id: str) -> Picture:
        """A picture by its id.

        Raises:
            ValueError: there is none.
        """
        if not isinstance(picture_id, str) or picture_id not in self.pictures:
            raise ValueError('This picture is no longer on the server; add it again.')
        return self.pictures[picture_id]

    def read_prompts(self, request: Any) -> PagePrompts:
        """What a page sent.

        ``{references: [{picture, boxes, classes}], distractors: [name]}``, and ``tuned``: true.

        Raises:
            ValueError: it is something else, or a box does not lie in its picture.
        """
        try:
            references = tuple(
                DrawnBoxes(
                    reference['picture'],
                    tuple(tuple(map(float, box)) for box in reference['boxes']),
                    tuple(map(_class_name, reference['classes'])),
                )
                for reference in request['references']
            )
            distractors = tuple(map(_class_name, request['distractors']))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError('The request is not what this page sends; reload the page.') from error
        if sum(len(reference.boxes) for reference in references) > MOST_BOXES:
            raise ValueError(f'At most {MOST_BOXES} boxes can serve as prompts.')
        for reference in references:
            picture = self.picture(reference.picture_id)
            if len(reference.boxes) != len(reference.classes) or not reference.boxes:
                raise ValueError(f'{picture.name}: every box needs a class name.')
            if any(len(box) != 4 or not all(map(isfinite, box)) for box in reference.boxes):
                raise ValueError(f'{picture.name}: a box is four numbers, (x1, y1, x2, y2).')
            exemplar_boxes(reference.boxes, picture.size, picture.name)  # says which lies outside
        return PagePrompts(references, distractors, request.get('tuned') is True)


class PageSessions:
    """The open pages, at most max_sessions with at most max_pictures each."""

    def __init__(self, max_sessions: int, max_pictures: int) -> None:
        self.max_sessions = max_sessions
        self.max_pictures = max_pictures
        self._sessions: dict[str, PageSession] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self) -> PageSession:
        """Begin a session, and forget another where there are too many.

        Pages without pictures go first, then those unused for longest: opening the address again
        and again, which another site can make a browser do, takes nobody's work away.
        """
        with self._lock:
            while len(self._sessions) >= self.max_sessions:
                victim = min(
                    self._sessions.values(), key=lambda page: (bool(page.pictures), page.last_used)
                )
                del self._sessions[victim.token]
                if victim.improvement is not None:
                    victim.improvement.cancel()
            session = PageSession(secrets.token_urlsafe(24), self.max_pictures)
            self._sessions[session.token] = session
            return session

    def get(self, token: str) -> PageSession:
        """The session of a page.

        Raises:
            SessionGone: there is none, or it was forgotten.
        """
        with self._lock:
            session = self._sessions.get(token)
            if session is None:
                raise SessionGone(
                    'The server has forgotten this page (it was restarted, or too many pages are '
                    'open): reload the page.'
                )
            session.last_used = time.monotonic()
            return session


def _class_name(name: Any) -> str:
    """A usable class name, without blanks around it."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError('A class needs a name.')
    if len(name) > LONGEST_CLASS_NAME:
        raise ValueError(f'A class name has at most {LONGEST_CLASS_NAME} characters.')
    return name.strip()
