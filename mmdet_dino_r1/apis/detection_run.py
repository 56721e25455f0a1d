"""Detection in a long list of images: part by part, read ahead by loader processes.

Processes share nothing but the folder. Each does its own parts, then those of others that are not
there yet; a part is the same whoever does it, so that two may do one. Nothing waits for anything.
"""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..config.loading import image_pipeline
from .detection_parts import PartFolder
from .detection_results import Kept
from .image_input import ImageReader, PreparedImage, UnreadableImage, picture_names
from .image_list import ImageList
from .inferencer import DINOR1Inferencer
from .reference_prompts import Reference

_PATIENCE = 600  # seconds for the next image of a loader process

# Called after each image with the images done by this process and their highest number.
Progress = Callable[[int, int], None]


class Interrupted(Exception):
    """The run cannot go on now; what is finished is kept, and the same command goes on."""


@dataclass
class Unreadable:
    """An image that could not be read, on its way from a loader process."""

    index: int
    message: str


@dataclass
class ImageFiles(Dataset):
    """The images of a list as a loader reads them; without ``pixels`` unless they are drawn on."""

    images: ImageList
    read: ImageReader
    pixels: bool

    def __getitem__(self, index: int) -> PreparedImage | Unreadable:
        """Read an image and prepare it."""
        try:
            prepared = self.read(self.images.paths[index], index)
        except UnreadableImage as error:
            return Unreadable(index, str(error))
        if torch.utils.data.get_worker_info() is not None:
            prepared.data['inputs'] = _ready_to_send(prepared.data['inputs'])
        return prepared if self.pixels else replace(prepared, pixels=None)


def _ready_to_send(inputs: Tensor) -> Tensor | np.ndarray:
    """A tensor in shared memory, or, where that has no room (containers), what goes by a pipe.

    Left to the loader's own thread, a tensor without room would be lost and waited for in vain.
    """
    try:
        return inputs.share_memory_()
    except RuntimeError:
        return inputs.numpy()


@dataclass
class DetectionRun:
    """A detection with an inferencer whose prompts are set.

    Args:
        inferencer: it.
        images: the images.
        folder: where the parts are kept.
        batch_size: images of one size at a time; within a part, so that it does not matter who
            does it.
        score_thr: lowest score.
        top_k: most detections per class and image; None: no limit.
        workers: loader processes; 0: images are read in between.
        pictures: folder of drawn images, or None.

    Attributes:
        seconds_waited: for images, instead of the model.
        images_done: by this process.
    """

    inferencer: DINOR1Inferencer
    images: ImageList
    folder: PartFolder
    batch_size: int = 1
    score_thr: float = 0.3
    top_k: int | None = None
    workers: int = 2
    pictures: Path | None = None
    seconds_waited: float = field(default=0.0, init=False)
    images_done: int = field(default=0, init=False)

    def __call__(self, rank: int = 0, world: int = 1, progress: Progress | None = None) -> None:
        """Do what is missing, as one of ``world`` processes.

        Raises:
            Interrupted: a signal to end, a loader process that died, or images that are gone.
            OSError: a part cannot be written; those that are finished are kept.
        """
        begun: deque[int] = deque()
        names = picture_names(self.images.names) if self.pictures else []
        own = [part for part in self.folder.missing() if part % world == rank]
        most = sum(len(self.folder.indices(part)) for part in own)
        with _signals_interrupt():
            arriving = self._timed(iter(self._loader(self._in_turn(rank, world, begun))))
            for first in arriving:
                part = begun.popleft()
                rest = islice(arriving, len(self.folder.indices(part)) - 1)
                for _ in self._detect_part(part, chain([first], rest), names):
                    self.images_done += 1
                    if progress is not None:
                        progress(self.images_done, max(most, self.images_done))

    def _in_turn(self, rank: int, world: int, begun: deque[int]) -> Iterator[int]:
        """Indices of images, of this process's parts and then of others', the last ones first."""
        number = self.folder.number
        others = [reversed(range((rank + step) % world, number, world)) for step in range(1, world)]
        for part in chain(range(rank, number, world), *others):
            if not self.folder.path(part).exists():
                begun.append(part)
                yield from self.folder.indices(part)

    def _loader(self, indices: Iterator[int]) -> DataLoader:
        ahead = None if self.workers == 0 else max(2, -(-2 * self.batch_size // self.workers))
        return DataLoader(
            ImageFiles(self.images, self.inferencer.pipeline, self.pictures is not None),
            batch_size=None,
            sampler=indices,  # type: ignore[arg-type]  # taken as far as is read ahead
            num_workers=self.workers,
            prefetch_factor=ahead,
            timeout=_PATIENCE if self.workers else 0,
            collate_fn=_as_it_is,
            worker_init_fn=_begin_worker,
        )

    def _timed(self, loaded: Iterator) -> Iterator[PreparedImage | Unreadable]:
        """What is loaded; the time it takes to come is counted."""
        while True:
            start = time.perf_counter()
            try:
                item = next(loaded, None)
            except RuntimeError as error:
                if 'DataLoader' not in str(error):
                    raise
                raise Interrupted(f'a process that reads images died or hangs: {error}') from error
            self.seconds_waited += time.perf_counter() - start
            if item is None:
                return
            yield item

    def _detect_part(
        self, part: int, items: Iterable[PreparedImage | Unreadable], names: list[str]
    ) -> Iterator[int]:
        """Detect in the images of a part and write it; gives the index of each as it is done."""
        classes = self.inferencer.classes
        kept = Kept(len(classes), self.score_thr, self.top_k)
        broken: dict[str, str] = {}
        lines: dict[int, dict] = {}
        detected = self.inferencer.detect_prepared(
            self._readable(items, broken), self.batch_size, broken
        )
        for image, sample in _with_enough_memory(detected):
            sample.pred_instances = kept(sample.pred_instances)
            if self.pictures is not None:
                self.inferencer.visualize(
                    image, sample, classes, self.pictures / names[image.index]
                )
            lines[image.index] = _line(self.inferencer.postprocess(image, sample, classes))
            yield image.index
        rows = []
        for index in self.folder.indices(part):
            line = lines.get(index) or dict(error=broken[self.images.paths[index]])
            row = dict(id=self.images.ids[index], image=self.images.names[index])
            if index in self.images.times:
                row['time'] = self.images.times[index]
            rows.append(row | line)
        found = {name for line in lines.values() for name in line['class_names']}
        best = dict(zip(classes, kept.best.tolist(), strict=True))
        self.folder.write(part, rows, {k: round(v, 5) for k, v in best.items() if k not in found})

    def _readable(
        self, items: Iterable[PreparedImage | Unreadable], broken: dict[str, str]
    ) -> Iterator[PreparedImage]:
        """The images that could be read; ``broken`` gets the message of each other, by its path.

        Raises:
            Interrupted: it is not the image, what it lies in is gone.
        """
        for item in items:
            if isinstance(item, PreparedImage):
                item.data['inputs'] = torch.as_tensor(item.data['inputs'])
                yield item
            elif (root := self.images.vanished()) is not None:
                raise Interrupted(f'{root} is gone, or empty, while its images are read')
            else:
                broken[self.images.paths[item.index]] = item.message


def _with_enough_memory(detected: Iterator) -> Iterator:
    try:
        yield from detected
    except torch.cuda.OutOfMemoryError as error:
        raise Interrupted(f'not enough GPU memory, give a lower --batch-size: {error}') from error


def what_is_asked(
    inferencer: DINOR1Inferencer, images: ImageList, references: Sequence[Reference]
) -> dict:
    """What results depend on, for :class:`PartFolder`: a run goes on only where it is the same.

    Not in it: ``batch_size`` and the device, which change results by rounding alone.

    Args:
        inferencer: the model, with its prompts.
        images: the images.
        references: what was encoded of the prompts, with paths as images. It counts as it was
            given: encoded again it may differ by rounding.

    Raises:
        RuntimeError: there are no prompts.
    """
    cfg, bank = inferencer.cfg, inferencer.prompt_bank
    if bank is None:
        raise RuntimeError('the inferencer has no prompts')
    model = json.dumps([cfg.model.to_dict(), image_pipeline(cfg)], default=str, sort_keys=True)
    taken = [id for id in images.category_ids.values() if not isinstance(id, str)]
    numbers = count(max(taken, default=0) + 1)
    ids = {
        name: images.category_ids[name] if name in images.category_ids else next(numbers)
        for name in inferencer.classes
    }
    encoded = {name for reference in references for name in reference.classes}
    ready = [
        row.numpy().tobytes()
        for name, row in zip(bank.class_names, bank.embeddings, strict=True)
        if name not in encoded
    ]
    return dict(
        images=len(images),
        image_list=images.fingerprint(),
        config=inferencer.made_with['model'],
        config_content=_fingerprint(model.encode()),
        checkpoint=inferencer.made_with['weights'],
        prompts=_fingerprint(repr([bank.class_names, references, ready]).encode()),
        categories=[dict(id=id, name=name) for name, id in ids.items()],
        distractors=list(inferencer.distractors),
    )


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _line(found: dict) -> dict:
    """Detections as they are written: boxes to 1/1000 pixel, scores to five digits."""
    return dict(
        height=found['height'],
        width=found['width'],
        class_names=found['class_names'],
        scores=[round(score, 5) for score in found['scores']],
        bboxes=[[round(value, 3) for value in box] for box in found['bboxes']],
    )


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Inside, SIGTERM and Ctrl+C raise ``Interrupted`` where the program is."""

    def stop(number: int, frame: object) -> None:
        raise Interrupted(f'ended by {signal.Signals(number).name}')

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _begin_worker(worker: int) -> None:
    # one thread each; and the process that they read for ends them
    cv2.setNumThreads(0)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)


def _as_it_is(item: object) -> object:
    return item
