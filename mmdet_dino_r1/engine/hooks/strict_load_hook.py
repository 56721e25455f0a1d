"""Strict load: refuses checkpoints of another model where all of a checkpoint is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import PretrainedInit
from mmengine.runner import BaseLoop, CheckpointLoader, Runner, find_latest_checkpoint
from torch import nn

from ...utils.checkpoint_fit import (
    LEFT_OVER,
    UnfitCheckpoint,
    explain_fusion,
    misfits,
    state_of,
)
from ...utils.wrappers import unwrapped

# parts of the model that a test does not use; the latter only if the prompts are no texts
_TRAINING_ONLY = ('dn_query_generator.', 'prompt_contrast.')
_OF_TEXT = ('text_alignment.', 'text_feat_map.')
_SHOWN = 5


# The second name is the one of 0.6 and before; it goes with 0.8.
@HOOKS.register_module(name=['StrictLoadHook', 'CheckpointFitHook'])
class StrictLoadHook(Hook):
    """Loads strictly to resume or to test: stops where the checkpoint is not of this model (ours).

    mmengine warns and goes on with random weights in place of what does not fit. That is right for
    ``load_from`` alone, where a new head on old weights is wanted. Put it into ``default_hooks``.
    What the checkpoint of a training replaces anyway (the ``Pretrained`` of a backbone) is not
    fetched.

    Raises:
        UnfitCheckpoint: tensors are missing or of another size; to resume, also if some are left
            over. In a test the parts that only train do not count.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._misfits: list[str] = []
        self._other_fusion: str | None = None

    def before_run(self, runner: Runner) -> None:
        """Leave out pretrained weights in place of which a training's checkpoint has others."""
        if runner._has_loaded or not isinstance(runner._train_loop, BaseLoop):
            return  # nothing will be initialised
        modules = unwrapped(runner.model).named_modules()
        parts = {name: part for name, part in modules if name and _is_pretrained(part)}
        file = runner._load_from
        if file is None and runner._resume:
            file = find_latest_checkpoint(runner.work_dir)
        if file is None or not parts:
            return
        given = state_of(CheckpointLoader.load_checkpoint(file, map_location='cpu'))
        for name, part in parts.items():
            own = part.state_dict(prefix=f'{name}.')
            if not misfits(own, {key: given[key] for key in own.keys() & given.keys()}):
                part.is_init = True  # what a parent's `init_weights` leaves out
                runner.logger.info(
                    f'{name}: not initialised from its init_cfg, since {file} has it.'
                )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare; UnfitCheckpoint for a run to be resumed from one of another model."""
        model = unwrapped(runner.model)
        self._other_fusion = explain_fusion(model, checkpoint)
        self._misfits = misfits(model.state_dict(), state_of(checkpoint))
        if self._misfits and runner.cfg.get('resume'):
            file = runner.cfg.get('load_from') or find_latest_checkpoint(runner.work_dir)
            remedy = f'To start anew with the tensors that fit: --cfg-options load_from={file}'
            raise UnfitCheckpoint(_explain(file, self._misfits, f'{remedy}, without --resume'))

    def before_test(self, runner: Runner) -> None:
        """UnfitCheckpoint, before prompts are encoded, if what a test needs is missing or other."""
        by_text = any(getattr(hook, 'protocol', None) == 'text' for hook in runner.hooks)
        unused = _TRAINING_ONLY if by_text else _TRAINING_ONLY + _OF_TEXT
        needed = [line for line in self._misfits if not line.startswith(unused)]
        needed = [line for line in needed if not line.endswith(LEFT_OVER)]
        if needed or self._other_fusion:
            file = runner.cfg.get('load_from')
            raise UnfitCheckpoint(_explain(file, needed, why=self._other_fusion))


def _is_pretrained(part: nn.Module) -> bool:
    """Whether all that initialises a module is a file."""
    init = getattr(part, 'init_cfg', None)
    return isinstance(init, Mapping) and init.get('type') in ('Pretrained', PretrainedInit)


def _explain(file: str | None, found: list[str], *remedies: str, why: str | None = None) -> str:
    more = [f'and {len(found) - _SHOWN} more'] if len(found) > _SHOWN else []
    beside = [str(path) for path in sorted(Path(file or '').parent.glob('*.py'))]
    copies = f' (beside it: {", ".join(beside)})' if beside else ''
    return '\n'.join(
        [
            f'the checkpoint {file} is not of this model: '
            f'{why or f"{len(found)} tensors do not fit"}.',
            *(f'  {line}' for line in [*found[:_SHOWN], *more]),
            f'Use the config that it was trained with{copies}.',
            *remedies,
        ]
    )
