"""Tells the prompt-text contrast which class each label of the training set is."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import Dataset

from ...utils.wrappers import unwrapped


@HOOKS.register_module()
class TextAlignmentHook(Hook):
    """Reads the class names' text embeddings before the first step, or says what is missing.

    Put it into ``default_hooks``; a model with ``text_alignment=None`` it leaves alone. It warns
    where the frozen projection of the text, ``text_feat_map``, did not come from a checkpoint.
    """

    def before_train(self, runner: Runner) -> None:
        """Match the rows of the file to the labels of the training set, by name.

        Raises:
            FileNotFoundError: there is no file of text embeddings.
            ValueError: the file lacks a class, or the training set does not name its classes.
        """
        model = unwrapped(runner.model)
        if getattr(model, 'text_alignment', None) is None:
            return
        model.text_alignment.set_classes(training_classes(runner.train_dataloader.dataset))
        if not model.text_feat_map.is_loaded:
            print_log(
                'model.text_feat_map, the projection of the class names, was not loaded from a '
                'checkpoint: it is random and stays so, and names of similar meaning need not '
                'lie close together. Start from a Grounding DINO checkpoint (load_from=...).',
                logger='current',
                level=logging.WARNING,
            )


def training_classes(dataset: Dataset) -> Sequence[str]:
    """Class names of a training set, in label order.

    Raises:
        ValueError: it names none, or its members count their labels differently.
    """
    metainfo = dataset.metainfo
    members = metainfo if isinstance(metainfo, list) else [metainfo]
    classes = {tuple(member.get('classes') or ()) for member in members}
    if len(classes) > 1 or () in classes:
        raise ValueError(
            'model.text_alignment needs a training set with one list of class names '
            f"(metainfo['classes']); {type(dataset).__name__} has "
            f'{"none" if () in classes else f"{len(classes)} different ones"}. '
            'Or train without the alignment: model.text_alignment=None'
        )
    return classes.pop()
