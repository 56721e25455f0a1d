"""One model for all pages, which take turns.

Names: session of a page; prompts = what it looks for; picture_id = where; threshold = lowest score.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from ..apis import DINOR1Inferencer, Reference, to_coco
from ..structures import PromptBank, load_prompt_bank, save_prompt_bank
from .page_session import PagePrompts, PageSession
from .uploads import Decode, decoder_like

# Detections are sent down to this score; the page's slider hides those below its own.
LOWEST_SCORE = 0.05


class SharedDetector:
    """Detects what the boxes of a page show.

    Args:
        inferencer: the model.
        bank: prompts, or their file, that every page has besides its boxes.

    Attributes:
        bank_classes: names of the classes of ``bank``.
        decode: reads pictures as the model's test pipeline does.

    Raises:
        FileNotFoundError: there is no such bank.
        ValueError: it is none, or was made by a model of another width.
    """

    def __init__(self, inferencer: DINOR1Inferencer, bank: PromptBank | str | Path | None = None):
        self.inferencer = inferencer
        self.bank = bank if isinstance(bank, PromptBank | None) else load_prompt_bank(bank)
        if self.bank is not None:
            inferencer.set_prompts(bank=self.bank)  # a wrong one is refused before any page opens
        self.bank_classes = () if self.bank is None else self.bank.class_names
        self.decode: Decode = decoder_like(inferencer.pipeline.load.from_file)
        self._lock = Lock()

    def detect(self, session: PageSession, prompts: PagePrompts, picture_id: str) -> dict:
        """Detect in one picture, and keep what was found for :meth:`coco`.

        Returns:
            What :class:`DINOR1Inferencer` gives for an image, down to ``LOWEST_SCORE``, and
            ``classes``, the names in label order.

        Raises:
            ValueError: there is no prompt or no such picture, all classes are negatives, or a
                class is in the bank and in the boxes.
        """
        picture = session.picture(picture_id)
        with self._lock:
            self._put_in_force(session, prompts)
            answer = self.inferencer(self.decode(picture.content), score_thr=LOWEST_SCORE)
        (found,) = answer['predictions']
        found = dict(found, image=picture.name, classes=answer['classes'])
        if picture_id in session.pictures:  # it may have been removed meanwhile
            session.results[picture_id] = (prompts, found)
        return found

    def bank_file(self, session: PageSession, prompts: PagePrompts) -> bytes:
        """The prompts as a ``.safetensors`` file.

        Returns:
            The file's content.

        Raises:
            ValueError: there is no prompt, or a class is in the bank and in the boxes.
        """
        with self._lock:
            bank = self._encode(session, prompts)
        with TemporaryDirectory() as folder:
            return save_prompt_bank(bank, Path(folder) / 'bank.safetensors').read_bytes()

    def coco(self, session: PageSession, prompts: PagePrompts, threshold: float) -> dict:
        """What was found with these prompts, as a COCO data set.

        Raises:
            ValueError: nothing was detected with these prompts.
        """
        found = [found for used, found in session.results.values() if used == prompts]
        if not found:
            raise ValueError('Nothing was detected with these prompts yet; press Detect.')
        shown = [_from_score(result, threshold) for result in found]
        return to_coco(dict(predictions=shown, classes=found[0]['classes']))

    def _put_in_force(self, session: PageSession, prompts: PagePrompts) -> None:
        """Let the model look for these prompts, unless it does."""
        bank = self._encode(session, prompts)
        in_force = self.inferencer.prompt_bank is bank
        if not in_force or self.inferencer.negatives != tuple(dict.fromkeys(prompts.negatives)):
            self.inferencer.set_prompts(bank=bank, negatives=prompts.negatives)

    def _encode(self, session: PageSession, prompts: PagePrompts) -> PromptBank:
        """The prompts of a page, encoded only where its boxes have changed."""
        if not prompts.references:
            if self.bank is None:
                raise ValueError('Nothing shows what to look for: draw a box on a reference first.')
            return self.bank
        if session.encoded is None or session.encoded[0] != prompts.references:
            pictures = [session.picture(drawn.picture_id) for drawn in prompts.references]
            bank = self.inferencer.set_prompts(
                [
                    Reference(self.decode(picture.content), drawn.boxes, drawn.classes)
                    for picture, drawn in zip(pictures, prompts.references, strict=True)
                ]
            )
            names = tuple(pictures[index].name for index in bank.exemplars.image_ids)
            bank = bank.with_exemplars(replace(bank.exemplars, file_names=names))
            if self.bank is not None:
                bank = PromptBank.merge([self.bank, bank])
            session.encoded = (prompts.references, bank)
        return session.encoded[1]


def _from_score(found: dict, threshold: float) -> dict:
    """The detections of an image from a score on."""
    kept = [index for index, score in enumerate(found['scores']) if score >= threshold]
    lists = ('labels', 'class_names', 'scores', 'bboxes')
    return found | {key: [found[key][index] for index in kept] for key in lists}
