"""One model for all pages, which take turns: for a picture, or for a step of a tuning."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from ..apis import DINOR1Inferencer, Reference, to_coco
from ..apis.prompt_tuning import tune_references
from ..structures import PromptBank, load_prompt_bank, save_prompt_bank
from .improvement import Improvement
from .page_session import DrawnBoxes, PagePrompts, PageSession

# Detections are sent down to this score; the page's slider hides those below its own.
LOWEST_SCORE = 0.05
# Seconds between two steps of a tuning, so that who waits for the model gets it.
_TURN = 0.005
# With fusion each step runs encoder and decoder again: minutes rather than an hour on a CPU.
_FEWER = dict(steps=40, folds=2)


def tune_in_turns(
    inferencer: DINOR1Inferencer,
    references: Sequence[Reference],
    start: PromptBank | None,
    lock: Lock,
    progress: Callable[[int, int], None],
) -> PromptBank:
    """Tune, and let others have the model, whose ``lock`` is held, after each step.

    See :func:`tune_references` for the rest, and for the errors.
    """

    def after_step(done: int, all_steps: int) -> None:
        lock.release()
        time.sleep(_TURN)
        lock.acquire()
        progress(done, all_steps)

    options = dict(batch_size=min(8, len(references)))  # more would be repetitions
    if inferencer.model.fusion:
        options |= _FEWER
    return tune_references(inferencer, references, start, after_step, **options)


class SharedDetector:
    """Detects with an inferencer what the boxes of a page show.

    ``bank``: prompts, or their file, that every page has besides its boxes. ``decode`` reads
    pictures as the model's test pipeline does.
    """

    def __init__(self, inferencer: DINOR1Inferencer, bank: PromptBank | str | Path | None = None):
        self.inferencer = inferencer
        self.bank = bank if isinstance(bank, PromptBank | None) else load_prompt_bank(bank)
        if self.bank is not None:
            inferencer.set_prompts(bank=self.bank)  # a wrong one is refused before any page opens
        self.bank_classes = () if self.bank is None else self.bank.class_names
        self.encoded_jointly = inferencer.model.prompt_encoder.joint  # a class's boxes, by picture
        self.decode = inferencer.pipeline.decode
        self._lock = Lock()  # the model's
        self._tuning = Lock()  # one tuning at a time: each keeps features in memory

    def detect(self, session: PageSession, prompts: PagePrompts, picture_id: str) -> dict:
        """Detect in one picture, and keep what was found for :meth:`coco`.

        Gives what :class:`DINOR1Inferencer` does for an image, down to ``LOWEST_SCORE``, and
        ``classes``, the names in label order.
        """
        picture = session.picture(picture_id)
        with self._lock:
            bank, in_force = self._encode(session, prompts), self.inferencer.prompt_bank
            distractors = tuple(dict.fromkeys(prompts.distractors))
            if in_force is not bank or self.inferencer.distractors != distractors:
                self.inferencer.set_prompts(bank=bank, distractors=distractors)
            answer = self.inferencer(self.decode(picture.content), score_thr=LOWEST_SCORE)
        (found,) = answer['predictions']
        found = dict(found, image=picture.name, classes=answer['classes'])
        if picture_id in session.pictures:  # it may have been removed meanwhile
            session.results[picture_id, prompts.tuned] = (prompts, found)
        return found

    def bank_file(self, session: PageSession, prompts: PagePrompts) -> bytes:
        """The content of a ``.safetensors`` file of the prompts."""
        with self._lock:
            bank = self._encode(session, prompts)
        with TemporaryDirectory() as folder:
            return save_prompt_bank(bank, Path(folder) / 'bank.safetensors').read_bytes()

    def coco(
        self,
        session: PageSession,
        prompts: PagePrompts,
        picture_ids: Sequence[str],
        threshold: float,
    ) -> dict:
        """What was found in pictures with these prompts, from a score on, as a COCO data set.

        Raises:
            ValueError: nothing was detected with these prompts.
        """
        results = [session.results.get((str(id_), prompts.tuned)) for id_ in picture_ids]
        found = [result[1] for result in results if result and result[0] == prompts]
        if not found:
            raise ValueError('Nothing was detected with these prompts yet; press Detect.')
        shown = []
        for image in found:  # best first
            count = sum(score >= threshold for score in image['scores'])
            shown.append(image | {k: image[k][:count] for k in ('labels', 'scores', 'bboxes')})
        return to_coco(dict(predictions=shown, classes=found[0]['classes']))

    def improve(
        self,
        session: PageSession,
        prompts: PagePrompts,
        complete: Sequence[str],
        most_minutes: float,
    ) -> None:
        """Begin to tune a page's prompts on some of its references, in the background.

        What is running for the page is ended. With ``prompts.tuned`` the outcome is detected with.

        Args:
            session: the page; its ``improvement`` tells how far it is.
            prompts: all its boxes.
            complete: ids of the references in which all objects have their box.
            most_minutes: then it is given up.

        Raises:
            ValueError: none of the references is complete.
        """
        chosen = [drawn for drawn in prompts.references if drawn.picture_id in complete]
        if not chosen:
            raise ValueError(
                'No picture is complete: tick those in which every object has its box.'
            )
        if session.improvement is not None:
            session.improvement.cancel()
        session.improvement = Improvement(session, prompts.references, most_minutes)
        session.improvement.start(lambda job: self._tune(session, prompts, chosen, job))

    def _tune(
        self,
        session: PageSession,
        prompts: PagePrompts,
        chosen: Sequence[DrawnBoxes],
        job: Improvement,
    ) -> PromptBank:
        """Tune, and let others have the model after each step."""
        while not self._tuning.acquire(timeout=1):
            job.go_on()
        try:
            with self._lock:
                job.begins()
                averaged = self._encode(session, prompts._replace(tuned=False))
                # Classes of the bank begin with its rows, those drawn with their own mean.
                drawn = {name for boxes in chosen for name in boxes.classes}
                others = [
                    name
                    for name in averaged.class_names
                    if name in self.bank_classes or name not in drawn
                ]
                start = averaged.aligned_to(others) if others else None
                references = self._references(session, chosen)
                bank = tune_in_turns(self.inferencer, references, start, self._lock, job.progress)
                return self._with_names(session, chosen, bank)
        finally:
            self._tuning.release()

    def _encode(self, session: PageSession, prompts: PagePrompts) -> PromptBank:
        """The prompts of a page, encoded only where its boxes have changed.

        Boxes of the bank's classes are for an improvement: here its rows stay.

        Raises:
            ValueError: there are none, or other boxes were tuned.
        """
        if prompts.tuned:
            job = session.improvement
            if job is None or job.bank is None or job.references != prompts.references:
                raise ValueError('The boxes are not those that were improved: press Improve again.')
            return job.bank
        references = list(filter(None, map(self._of_new_classes, prompts.references)))
        if not references:
            if self.bank is None:
                raise ValueError('Nothing shows what to look for: draw a box on a reference first.')
            return self.bank
        if session.encoded is None or session.encoded[0] != prompts.references:
            bank = self.inferencer.set_prompts(self._references(session, references))
            bank = self._with_names(session, references, bank)
            if self.bank is not None:
                bank = PromptBank.merge([self.bank, bank])
            session.encoded = (prompts.references, bank)
        return session.encoded[1]

    def _of_new_classes(self, drawn: DrawnBoxes) -> DrawnBoxes | None:
        """Without the boxes whose class is in the bank; None where nothing is left."""
        pairs = zip(drawn.boxes, drawn.classes, strict=True)
        kept = [pair for pair in pairs if pair[1] not in self.bank_classes]
        return DrawnBoxes(drawn.picture_id, *zip(*kept, strict=True)) if kept else None

    def _references(self, session: PageSession, drawn: Sequence[DrawnBoxes]) -> list[Reference]:
        return [
            Reference(self.decode(session.picture(id_).content), boxes, classes)
            for id_, boxes, classes in drawn
        ]

    @staticmethod
    def _with_names(
        session: PageSession, drawn: Sequence[DrawnBoxes], bank: PromptBank
    ) -> PromptBank:
        """The record of exemplars with the pictures' names in place of their numbers."""
        record = bank.exemplars
        if record is None:  # of a bank that was begun with
            return bank
        names = tuple(session.picture(drawn[k].picture_id).name for k in record.image_ids)
        return bank.with_exemplars(replace(record, file_names=names))
