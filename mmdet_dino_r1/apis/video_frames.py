"""Frames of video files as images."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
from mmengine.fileio import BaseStorageBackend, register_backend

VIDEO_SUFFIXES = frozenset('.avi .m4v .mkv .mov .mp4 .mpeg .mpg .webm'.split())


class VideoBackend(BaseStorageBackend):
    """What mmengine's ``fileio`` reads ``video://FILE#FRAME`` with, as a bitmap.

    Frames are counted by decoding, never looked for: many codecs only come near the place that they
    are told. Asked for in order, each is decoded once in a process.
    """

    def __init__(self) -> None:
        self._path: str | None = None
        self._next = 0
        self._capture: cv2.VideoCapture | None = None
        self._process = os.getpid()
        self._inherited: list = []

    def get(self, filepath: str) -> bytes:
        """A frame, counted from 0; OSError: the file is not there, or ends before it."""
        path, number = filepath.removeprefix('video://').rsplit('#', 1)
        frame = int(number)
        if os.getpid() != self._process:
            # Its threads are those of the process that was forked; to close it waits for them.
            self._inherited.append(self._capture)
            self._process, self._path = os.getpid(), None
        if path != self._path or frame < self._next:
            self._path, self._next = path, 0
            self._capture = cv2.VideoCapture(path)
        assert self._capture is not None
        while self._next < frame and self._capture.grab():
            self._next += 1
        taken, pixels = self._capture.read()
        if not taken:
            self._path = None
            raise OSError(f'{path} ends before frame {frame}')
        self._next += 1
        return cv2.imencode('.bmp', pixels)[1].tobytes()

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """There is none; raises NotImplementedError."""
        raise NotImplementedError('A frame of a video has no text.')


register_backend('video', VideoBackend, prefixes='video')


def list_frames(path: Path, stride: int) -> dict[str, float]:
    """Addresses of every ``stride``-th frame from the first on, with their time in seconds.

    Raises:
        ValueError: it is not there, or no video that OpenCV can read.
    """
    capture = cv2.VideoCapture(str(path))
    found: dict[str, float] = {}
    frame = 0
    while capture.grab():  # what the file says of its length is an estimate
        if frame % stride == 0:
            seconds = round(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 3)
            found[f'video://{path}#{frame}'] = seconds
        frame += 1
    if not found:
        raise ValueError(f'{path} is not there, or no video that OpenCV can read.')
    return found
