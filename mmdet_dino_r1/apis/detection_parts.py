"""The folder of a long detection: what was asked for, the finished parts, and their sum.

``run.json`` says what was asked for. ``parts/part_000003.jsonl`` has a line of JSON for each of the
images of part 3 and a last one on the part; a part is there whole or not at all. docs/labelling.md
has the schema.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ..utils.atomic_write import atomic_path, atomic_write
from .detection_results import coco_annotation


@dataclass
class Summary:
    """What the parts of a run hold.

    ``images`` that were read; ``unreadable``: message by name; ``counts``: detections of each
    class; ``best_scores``: of classes without any, the highest score, below the threshold.
    """

    images: int
    unreadable: dict[str, str]
    counts: Counter[str]
    best_scores: dict[str, float]

    def described(self) -> str:
        """How much was found."""
        return f'{self.counts.total()} detections in {self.images} images'


class PartFolder:
    """The parts of a run in a folder.

    Args:
        out: the folder.
        run: what was asked for: ``images`` (their number), ``part_size``, ``categories`` (id and
            name of each class) and what else makes a difference.
    """

    def __init__(self, out: Path, run: dict) -> None:
        self.out, self.run = out, run
        self.result = out / 'predictions.json'
        self.unreadable = out / 'unreadable.txt'
        self._manifest = out / 'run.json'
        self._parts = out / 'parts'
        self.number = -(-run['images'] // run['part_size'])

    @classmethod
    def of_run(cls, out: Path) -> PartFolder:
        """That of a run which has begun; ValueError: there is none."""
        try:
            return cls(out, json.loads((out / 'run.json').read_text(encoding='utf-8')))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError(f'{out} is no folder that detect wrote: no run.json.') from error

    def begin(self, overwrite: bool = False, retry: bool = False) -> None:
        """Make the folder, or go on in it.

        Args:
            overwrite: forget the parts that are there.
            retry: forget those with images that could not be read.

        Raises:
            ValueError: something else was asked for there.
            OSError: it cannot be written.
        """
        if any(self._parts.glob('*.jsonl')) and not overwrite:
            self.refuse_another()
        self._parts.mkdir(parents=True, exist_ok=True)
        results = f'{self.result.name}.*.tmp'
        for path in (*self._parts.glob('*.tmp'), *self.out.glob(results)):  # of a killed process
            path.unlink()
        if overwrite:
            self._forget()
        elif retry:
            for part, rows in self._finished():
                if any('error' in row for row in rows):
                    self.path(part).unlink()
        if self.missing():
            self.result.unlink(missing_ok=True)
        content = _dump(self.run).encode()
        if not self._manifest.exists() or self._manifest.read_bytes() != content:
            atomic_write(self._manifest, content)

    def refuse_another(self) -> None:
        """ValueError: the run in the folder is not this one."""
        other = PartFolder.of_run(self.out).run
        # by way of JSON, which has no tuples
        asked = json.loads(_dump(self.run))
        if differ := [key for key in {**asked, **other} if asked.get(key) != other.get(key)]:
            told = '; '.join(
                f'{key} {_short(other.get(key))}, now {_short(asked.get(key))}' for key in differ
            )
            raise ValueError(
                f'{self.out} has the results of another run: {told}. Give another --out, or '
                '--overwrite to begin anew.'
            )

    def path(self, part: int) -> Path:
        """The file of a part."""
        return self._parts / f'part_{part:06d}.jsonl'

    def indices(self, part: int) -> range:
        """Places of its images in the list of all."""
        size = self.run['part_size']
        return range(part * size, min((part + 1) * size, self.run['images']))

    def missing(self) -> list[int]:
        """The parts that are not finished."""
        return [part for part in range(self.number) if not self.path(part).exists()]

    def write(self, part: int, images: Sequence[dict], best_scores: dict[str, float]) -> None:
        """Finish a part; OSError: it cannot be written, and is not there."""
        rows = [*images, dict(part=part, images=len(images), best_scores=best_scores)]
        atomic_write(self.path(part), ''.join(f'{_dump(row)}\n' for row in rows).encode())

    def _forget(self) -> None:
        for path in self._parts.glob('*.jsonl'):
            path.unlink()

    def _finished(self) -> Iterator[tuple[int, list[dict]]]:
        """The finished parts with their lines; ValueError: one is not whole."""
        for part in range(self.number):
            if not self.path(part).exists():
                continue
            try:
                with self.path(part).open(encoding='utf-8') as file:
                    rows = list(map(json.loads, file))
            except ValueError:
                rows = []
            if not rows or not rows[-1].get('images') == len(rows) - 1 == len(self.indices(part)):
                raise ValueError(f'{self.path(part)} is damaged: delete it and run detect again.')
            yield part, rows

    def join(self) -> Summary:
        """Write the COCO data set of what is finished, and the list of unreadable images.

        Holds one part at a time. Ids of annotations count from 1.

        Raises:
            ValueError: a part is damaged, or no image could be read; such parts are forgotten.
            OSError: it cannot be written.
        """
        categories = self.run['categories']
        ids = {category['name']: category['id'] for category in categories}
        summary = Summary(0, {}, Counter(dict.fromkeys(ids, 0)), {})
        with atomic_path(self.result) as path, path.open('w', encoding='utf-8') as file:
            file.write('{"images": [')
            _write_rows(file, self._images(summary))
            if not summary.images:
                self._forget()
                first = next(iter(summary.unreadable.values()), 'nothing is finished')
                raise ValueError(f'no image could be read: {first}')
            file.write(f'],\n"categories": {_dump(categories)},\n"annotations": [')
            _write_rows(file, self._annotations(ids))
            file.write(']}\n')
        if summary.unreadable:
            rows = [f'{name}\t{message}\n' for name, message in summary.unreadable.items()]
            atomic_write(self.unreadable, ''.join(rows).encode())
        else:
            self.unreadable.unlink(missing_ok=True)
        return summary

    def _images(self, summary: Summary) -> Iterator[dict]:
        """COCO's images; what the parts hold is added up on the way."""
        for _, (*images, last) in self._finished():
            for image in images:
                if 'error' in image:
                    summary.unreadable[image['image']] = image['error']
                    continue
                summary.images += 1
                summary.counts.update(image['class_names'])
                more = {key: image[key] for key in ('height', 'width', 'time') if key in image}
                yield dict(id=image['id'], file_name=image['image'], **more)
            for name, score in last['best_scores'].items():
                summary.best_scores[name] = max(score, summary.best_scores.get(name, 0))

    def _annotations(self, ids: dict[str, int]) -> Iterator[dict]:
        number = 0
        for image in chain.from_iterable(rows[:-1] for _, rows in self._finished()):
            if 'error' in image:
                continue
            found = zip(image['class_names'], image['bboxes'], image['scores'], strict=True)
            for name, box, score in found:
                number += 1
                yield coco_annotation(number, image['id'], ids[name], box, score)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_rows(file, rows: Iterator[dict]) -> None:
    for index, row in enumerate(rows):
        file.write(f'{"," * bool(index)}\n{_dump(row)}')


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
