"""Tells the prompt-text contrast which class each label of the training set is."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...config.class_lists import one_class_list
from ...structures import TextEmbeddings
from ...utils.wrappers import unwrapped
from ..text_embedding import read_or_make


@HOOKS.register_module()
class TextAlignmentHook(Hook):
    """Reads the class names' text embeddings before the first step, or says what is missing.

    Where there is no file, the first process makes it, if ``model.text_alignment.bert`` says with
    what. It reads or makes the embeddings for all, so the others stop where it does.

    Put it into ``default_hooks``; a model with ``text_alignment=None`` it leaves alone. It warns
    where the frozen projection of the text, ``text_feat_map``, did not come from a checkpoint.
    """

    def before_train(self, runner: Runner) -> None:
        """Match the rows of the file to the labels of the training set, by name.

        Raises:
            FileNotFoundError: there is no file of text embeddings, and none can be made.
            ValueError: the file lacks a class, or the training set does not name its classes, or
                has several lists of them.
        """
        model = unwrapped(runner.model)
        if getattr(model, 'text_alignment', None) is None:
            return
        classes = one_class_list(dataset := runner.train_dataloader.dataset)
        if not classes:
            raise ValueError(
                "model.text_alignment needs the names of the classes (metainfo['classes']), and "
                f'{type(dataset).__name__} has none. Or train without the alignment: '
                'model.text_alignment=None'
            )
        source = f'{Path(runner.cfg.filename or "").stem} (train)'
        read = partial(
            _read_for_all, bert=model.text_alignment.bert, class_names=classes, source=source
        )
        model.text_alignment.set_classes(classes, read)
        if not model.text_feat_map.is_loaded:
            print_log(
                'model.text_feat_map, the projection of the class names, was not loaded from a '
                'checkpoint: it is random and stays so, and names of similar meaning need not '
                'lie close together. Start from a Grounding DINO checkpoint (load_from=...).',
                logger='current',
                level=logging.WARNING,
            )


def _read_for_all(path: str, **make) -> TextEmbeddings:
    """``read_or_make`` in the first process; its result, or its error, in all."""
    found = [None]
    if is_main_process():
        try:
            found = [read_or_make(path, **make)]
        except (OSError, ValueError) as error:
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]
