"""One model for all pages, which take turns."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import mmcv

from ..apis import DINOR1Inferencer, Reference, to_coco
from ..structures import PromptBank, load_prompt_bank, save_prompt_bank
from .page_session import PagePrompts, PageSession

# Detections are sent down to this score; the page's slider hides those below its own.
LOWEST_SCORE = 0.05


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
        load = inferencer.pipeline.load
        self.decode = partial(mmcv.imfrombytes, flag=load.color_type, backend=load.imdecode_backend)
        self._lock = Lock()

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
            session.results[picture_id] = (prompts, found)
        return found

    def bank_file(self, session: PageSession, prompts: PagePrompts) -> bytes:
        """The content of a ``.safetensors`` file of the prompts."""
        with self._lock:
            bank = self._encode(session, prompts)
        with TemporaryDirectory() as folder:
            return save_prompt_bank(bank, Path(folder) / 'bank.safetensors').read_bytes()

    def coco(self, session: PageSession, prompts: PagePrompts, threshold: float) -> dict:
        """What was found with these prompts, from a score on, as a COCO data set.

        Raises:
            ValueError: nothing was detected with these prompts.
        """
        found = [found for used, found in session.results.values() if used == prompts]
        if not found:
            raise ValueError('Nothing was detected with these prompts yet; press Detect.')
        shown = []
        for image in found:  # best first
            count = sum(score >= threshold for score in image['scores'])
            shown.append(image | {k: image[k][:count] for k in ('labels', 'scores', 'bboxes')})
        return to_coco(dict(predictions=shown, classes=found[0]['classes']))

    def _encode(self, session: PageSession, prompts: PagePrompts) -> PromptBank:
        """The prompts of a page, encoded only where its boxes have changed."""
        if not prompts.references:
            if self.bank is None:
                raise ValueError('Nothing shows what to look for: draw a box on a reference first.')
            return self.bank
        if session.encoded is None or session.encoded[0] != prompts.references:
            pictures = [session.picture(drawn.picture_id) for drawn in prompts.references]
            references = [
                Reference(self.decode(picture.content), drawn.boxes, drawn.classes)
                for picture, drawn in zip(pictures, prompts.references, strict=True)
            ]
            bank = self.inferencer.set_prompts(references)
            names = tuple(pictures[index].name for index in bank.exemplars.image_ids)
            bank = bank.with_exemplars(replace(bank.exemplars, file_names=names))
            if self.bank is not None:
                bank = PromptBank.merge([self.bank, bank])
            session.encoded = (prompts.references, bank)
        return session.encoded[1]
