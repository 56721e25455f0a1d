"""Checkpoints that a full disk or a killed process cannot spoil."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ...utils.atomic_write import atomic_path


class CheckpointNotSaved(OSError):
    """A checkpoint could not be written; the message says what is left and how to go on."""


@register_backend('atomic')
class AtomicFileBackend(LocalBackend):
    """Writes beside the file and renames: under its name there is a whole file or none."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file; where it cannot be written (OSError), what was there before stays."""
        path = Path(filepath)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as unfinished, open(unfinished, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())  # a quota of a network disk is told no sooner
        except OSError as error:
            need = f'{error.strerror} ({len(obj) / 1e6:.1f} MB to write)'
            raise OSError(error.errno, need, str(path)) from error


def _safely(save: Callable) -> Callable:
    """The parent's method; after it outdated checkpoints go, or the error is explained."""

    @wraps(save)
    def saves(self: SafeCheckpointHook, runner: Runner, *args, **kwargs) -> None:
        try:
            save(self, runner, *args, **kwargs)
        except OSError as error:
            if not self._is_local:
                raise
            # mmengine empties `last_checkpoint` before it writes, which fails on a full disk
            if self._named is not None:
                with suppress(OSError):
                    _name_file(runner).write_text(self._named, encoding='utf-8')
            raise CheckpointNotSaved(self._explain(error)) from error
        if self._is_local:
            self._named = self.last_ckpt or self._named
            while self._outdated:
                os.remove(self._outdated.pop())

    return saves


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, whose last checkpoint is always whole (ours).

    mmengine removes the oldest checkpoint, then writes under the final name. With a full disk, or
    killed in the middle, it leaves half a file, and with ``max_keep_ckpts=1`` nothing else.

    Here a file gets its name when it is whole. The outdated one goes after that, so the disk must
    hold one more than ``max_keep_ckpts``. Where writing fails, ``last_checkpoint`` still names the
    one before, for ``--resume``. On a remote storage mmengine's own writing is kept.

    Args:
        **kwargs: those of mmengine's ``CheckpointHook``.

    Raises:
        CheckpointNotSaved: a checkpoint could not be written.
    """

    _is_local = False  # a validation by itself saves nothing
    after_train_epoch = _safely(CheckpointHook.after_train_epoch)
    after_train_iter = _safely(CheckpointHook.after_train_iter)
    after_val_epoch = _safely(CheckpointHook.after_val_epoch)

    def before_train(self, runner: Runner) -> None:
        """Take over the writing, and clear what a killed run left unfinished."""
        super().before_train(runner)
        self._named: str | None = None
        self._outdated: list[str] = []
        self._is_local = type(self.file_backend) is LocalBackend
        if not self._is_local:
            return
        self.backend_args = dict(backend='atomic')
        self.file_backend = AtomicFileBackend()
        self.file_backend.remove = self._outdated.append  # not before the new one is there
        if is_main_process():
            for path in Path(self.out_dir).glob('*.pth.*.tmp'):  # of `atomic_path`
                path.unlink()
            with suppress(OSError):
                self._named = _name_file(runner).read_text(encoding='utf-8')

    def _explain(self, error: OSError) -> str:
        if self._named is None:
            then = 'There is no checkpoint before it. Make room and start again'
        else:
            then = (
                f'The last checkpoint is whole: {self._named}\n'
                'Make room and continue from it: the same command with --resume'
            )
        free = shutil.disk_usage(self.out_dir).free / 1e6
        return (
            f'the checkpoint {error.filename or ""} was not saved: {error.strerror}.\n'
            f'Free in {self.out_dir}: {free:.1f} MB.\n{then}\n'
            'To need less room: --cfg-options default_hooks.checkpoint.max_keep_ckpts=1, or '
            'default_hooks.checkpoint.out_dir=DIR on another disk.'
        )


def _name_file(runner: Runner) -> Path:
    """The file that names the checkpoint for ``--resume``."""
    return Path(runner.work_dir) / 'last_checkpoint'
