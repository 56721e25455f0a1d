"""One model for a Label Studio project: it predicts, completes what is drawn, and learns."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock, Thread

import numpy as np

from ..apis import DINOR1Inferencer, Reference
from ..apis.reference_prompts import exemplar_boxes
from ..structures import PromptBank, load_prompt_bank, save_prompt_bank
from ..utils.near_names import quote_with_near, some
from ..utils.overlap import iou
from .label_studio_tasks import Found, LabelConfig, LabelStudioServer
from .shared_detector import tune_in_turns

_SAME = 0.5  # IoU from which on something found is what was drawn
_log = logging.getLogger(__name__)


class LabelStudioBackend:
    """Predicts and learns for one project.

    Args:
        inferencer: the model.
        server: fetches images and annotations.
        save_bank: file that gets the bank of each training. If it is there, its prompts are in
            force from the start.
        bank: file of the prompts that the first predictions and every training begin with; None:
            there are none before a training.
        score_thr: lowest score of a prediction.
        new_labels: accept labels that ``bank`` lacks; they are predicted after a training.

    Raises:
        FileNotFoundError: there is no ``bank``.
        ValueError: a file is no bank, or of a model of another width.
    """

    def __init__(
        self,
        inferencer: DINOR1Inferencer,
        server: LabelStudioServer,
        save_bank: Path,
        bank: Path | None = None,
        score_thr: float = 0.3,
        new_labels: bool = False,
    ) -> None:
        self.inferencer = inferencer
        self.server = server
        self.save_bank = save_bank
        self.score_thr = score_thr
        self.new_labels = new_labels or bank is None
        self.training = 'none yet'  # how far the last one is, in words
        self._begin = None if bank is None else load_prompt_bank(bank)
        self._bank = load_prompt_bank(save_bank) if save_bank.exists() else self._begin
        for one in filter(None, (self._begin, self._bank)):
            inferencer.set_prompts(bank=one)  # a wrong one is refused before anybody asks
        self._lock = Lock()  # the model's
        self._tuning = Lock()  # one training at a time

    @property
    def model_version(self) -> str:
        """Another one for other predictions; the server asks again only for tasks without it."""
        return self._version(self._bank)

    def _version(self, bank: PromptBank | None) -> str:
        if bank is None:
            return 'no prompts'
        told = (self.inferencer.made_with['weights'], bank.class_names, self.score_thr)
        content = repr(told).encode() + bank.embeddings.numpy().tobytes()
        steps = bank.provenance.get('tuning', {}).get('steps')
        name = 'bank' if steps is None else f'tuned {steps} steps'
        return f'{name}, {hashlib.sha256(content).hexdigest()[:8]}'

    def check(self, config: LabelConfig) -> None:
        """Refuse labels without prompts, unless ``new_labels``.

        Raises:
            ValueError: there are such labels.
        """
        known = () if self._bank is None else self._bank.class_names
        missing = [label for label in config.labels if label not in known]
        if missing and not self.new_labels:
            raise ValueError(
                f'The bank lacks {len(missing)} of {len(config.labels)} labels: '
                f'{some([quote_with_near(label, known) for label in missing])}. Rename them in the '
                'labeling config, or start with --new-labels and teach them by a training.'
            )

    def predict(self, tasks: Sequence[dict], config: LabelConfig) -> tuple[list, str]:
        """A prediction for each task, and their ``model_version``.

        Without prompts there is an empty list for each, and for an image that cannot be used, of
        which a line on stderr says why. The server asks for these again.
        """
        bank = self._bank
        version, answers = self._version(bank), []
        wanted = [label for label in config.labels if bank and label in bank.class_names]
        if not wanted:
            return [[] for _ in tasks], version
        prompts = bank.aligned_to(wanted)
        for task in tasks:
            try:
                pixels = self._pixels(task, config)
                found = self._found(pixels, prompts)
            except (ValueError, OSError) as error:
                say(error)
                answers.append([])
            else:
                answers.append(config.prediction(found, pixels.shape[:2], version))
        return answers, version

    def complete(self, task: dict, regions: Sequence[dict], config: LabelConfig) -> dict:
        """A prediction of the rectangles that somebody drew on a task's image, and of their like.

        Those drawn come first, with score 1 and as they are, for Label Studio puts what comes in
        their place.

        Raises:
            ValueError: the image cannot be used, or there is no rectangle with a label.
        """
        pixels = self._pixels(task, config)
        size = pixels.shape[:2]
        drawn, labels = config.boxes(regions, size)
        if not drawn:
            raise ValueError('Choose a label, then draw a rectangle: it shows what to look for.')
        boxes = exemplar_boxes(drawn, size, f'Task {task["id"]}')
        found = [
            one
            for one in self._found(pixels, None, boxes=boxes, classes=labels)
            if iou(boxes, boxes.new_tensor(one[0])).max() < _SAME
        ]
        given = [(box, label, 1.0) for box, label in zip(boxes.tolist(), labels, strict=True)]
        return config.prediction(given + found, size, self.model_version)

    def train(self, project: int, config: LabelConfig) -> None:
        """Begin to tune the prompts on all that is annotated; :attr:`training` says how far it is.

        The last annotation of a task counts, unless it was skipped.

        Raises:
            ValueError: nothing is annotated, or cannot be fetched, or another training runs.
        """
        if not self._tuning.acquire(blocking=False):
            raise ValueError(f'A training is running: {self.training}. Wait for it.')
        try:
            accepted = self._accepted(project, config)
            args = accepted, config
            Thread(target=self._train, args=args, daemon=True, name='training').start()
        except BaseException as error:
            self.training = f'failed: {error}'
            self._tuning.release()
            raise

    def _accepted(self, project: int, config: LabelConfig) -> list[tuple[dict, list[dict]]]:
        """Tasks with the regions of their last annotation, where it has boxes."""
        pairs = []
        for task in self.server.annotated_tasks(project):
            submitted = [made for made in task['annotations'] if not made.get('was_cancelled')]
            if submitted:
                regions = max(submitted, key=lambda made: made['id'])['result']
                if config.boxes(regions, (1, 1))[0]:
                    pairs.append((task, regions))
        if not pairs:
            raise ValueError(
                f'Project {project} has no annotation with a box to learn from: submit some first.'
            )
        return pairs

    def _train(self, accepted: Sequence[tuple[dict, list[dict]]], config: LabelConfig) -> None:
        try:
            self.training = f'fetching {len(accepted)} images'
            references, names = [], []
            for task, regions in accepted:
                try:
                    pixels = self._pixels(task, config)
                    drawn, labels = config.boxes(regions, pixels.shape[:2])
                    boxes = exemplar_boxes(drawn, pixels.shape[:2], f'Task {task["id"]}')
                except (ValueError, OSError) as error:
                    say(f'left out of the training: {error}')
                    continue
                references.append(Reference(pixels, boxes, labels))
                names.append(task['data'][config.data_key])
            with self._lock:
                bank = tune_in_turns(
                    self.inferencer, references, self._begin, self._lock, self._progress
                )
            if (record := bank.exemplars) is not None:  # of images by their number
                files = tuple(names[index] for index in record.image_ids)
                bank = bank.with_exemplars(replace(record, file_names=files))
            save_prompt_bank(bank, self.save_bank)
            self._bank = bank
            steps = bank.provenance['tuning']['steps']
            self.training = f'done: {steps} steps on {len(references)} images, {self.save_bank}'
        except Exception as error:  # whatever it is, the thread ends here
            self.training = f'failed: {error}'
            if not isinstance(error, ValueError | OSError):
                _log.exception('The training failed.')
        finally:
            self._tuning.release()
            say(f'training {self.training}')

    def _progress(self, done: int, all_steps: int) -> None:
        self.training = f'step {done} of {all_steps}'

    def _pixels(self, task: dict, config: LabelConfig) -> np.ndarray:
        """The image of a task, (h, w, 3) BGR; ValueError, with the task: it cannot be used."""
        where = task['data'].get(config.data_key)
        try:
            if not isinstance(where, str):
                raise ValueError(f'its data have no image under {config.data_key!r}.')
            pixels = self.inferencer.pipeline.decode(self.server.image(where))
            if pixels is None:
                raise ValueError(f'{where} is no image.')
        except Exception as error:  # each decoder has its own
            raise ValueError(f'Task {task["id"]}: {" ".join(str(error).split())}') from error
        return pixels

    def _found(self, pixels: np.ndarray, prompts: PromptBank | None, **drawn) -> list[Found]:
        """Objects of an image, found with a bank or, instead, with what is ``drawn`` on it."""
        with self._lock:
            if prompts is not None and self.inferencer.prompt_bank is not prompts:
                self.inferencer.set_prompts(bank=prompts)
            answer = self.inferencer(pixels, score_thr=self.score_thr, **drawn)
        (found,) = answer['predictions']
        return [*zip(found['bboxes'], found['class_names'], found['scores'], strict=True)]


def say(message: object) -> None:
    """Tell whoever started the backend."""
    print(f'label_studio: {message}', file=sys.stderr, flush=True)
