"""mmengine's optimiser wrappers that let no bad gradient into the weights, on a CPU as well.

Overflow: a gradient not finite under loss scaling. The step is skipped and the scale halved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine import dist
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from ..utils.compat import torch_version
from ..utils.near_names import some

# Skipped in a row, each with half the scale of the one before: no scale would help.
MAX_OVERFLOWS = 30


class _GradientCheck:
    """Stop before gradients that are not finite are used (a mixin).

    mmengine goes on with them, and every weight is NaN. Where the norm is clipped, clipping itself
    finds out: no further wait for the device.
    """

    _model: nn.Module | None = None
    _overflows = 0

    def watch(self, model: nn.Module) -> None:
        """Learn from the bare model how parameters are named and what the step was."""
        self._model = model

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the optimiser's state; whether its kernels are fused is this machine's affair."""
        for saved, own in zip(state_dict['param_groups'], self.param_groups, strict=False):
            saved['fused'] = own.get('fused')  # other lengths: PyTorch says what is wrong
        super().load_state_dict(state_dict)

    def step(self, **kwargs) -> None:
        """Clip and update.

        Raises:
            FloatingPointError: gradients are not finite, or overflowed ``MAX_OVERFLOWS`` times
                in a row.
        """
        has_norm = self.clip_grad_kwargs is not None and self.grad_name == 'grad_norm'
        scaler = getattr(self, 'loss_scaler', None)
        if scaler is not None and scaler.is_enabled():
            super().step(**kwargs)
            if has_norm:
                self._count_overflows()
            return
        if has_norm:
            self.clip_grad_kwargs = dict(error_if_nonfinite=True) | self.clip_grad_kwargs
        else:
            self._raise_if_bad()
        try:
            super().step(**kwargs)
        except RuntimeError:
            if has_norm:
                self._raise_if_bad()
            raise

    def _count_overflows(self) -> None:
        norm = self.message_hub.get_scalar(f'train/{self.grad_name}').current()
        self._overflows = 0 if isfinite(norm) else self._overflows + 1
        if self._overflows >= MAX_OVERFLOWS:
            raise FloatingPointError(
                f'Gradients were not finite in {self._overflows} steps in a row, whatever the '
                f'scale of the loss.\n{self._describe_step()}'
            )

    def _raise_if_bad(self) -> None:
        groups = self.optimizer.param_groups
        parameters = [p for group in groups for p in group['params'] if p.grad is not None]
        if not parameters:
            return
        norms = torch.stack([parameter.grad.norm() for parameter in parameters])
        if norms.norm().isfinite():  # the one wait for the device where all is well
            return
        names = {} if self._model is None else {id(p): n for n, p in self._model.named_parameters()}
        wrong = norms.isfinite().logical_not().nonzero()[:, 0].tolist() or [int(norms.argmax())]
        bad = [names.get(id(parameters[index]), 'unnamed') for index in wrong]
        shared = ''
        if dist.get_world_size() > 1:
            shared = ' (They are averaged over ranks: the cause may lie with another.)'
        raise FloatingPointError(
            f'The losses are finite, but gradients are not, of {some(bad, 5)}.{shared}\n'
            f'{self._describe_step()}'
        )

    def _describe_step(self) -> str:
        report = getattr(self._model, 'step_diagnostics', None)
        return 'The weights were not updated.' if report is None else report.describe()


@OPTIM_WRAPPERS.register_module()
class CheckedOptimWrapper(_GradientCheck, OptimWrapper):
    """mmengine's ``OptimWrapper`` that stops at gradients that are not finite (ours)."""


@OPTIM_WRAPPERS.register_module()
class CheckedAmpOptimWrapper(_GradientCheck, AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper``, on a CPU too, that stops at bad gradients (ours).

    Without an accelerator, where the parent refuses to work, it uses autocast and loss scaling of
    the CPU, in bfloat16 unless ``dtype`` says float16. ``loss_scale='dynamic'`` (all that ``--amp``
    can say) scales nothing under bfloat16, which is as wide as float32. A run may be resumed in
    another precision.

    Args:
        loss_scale: as for the parent.
        dtype: of autocast, or its name; None: float16, on a CPU bfloat16.
        use_fsdp: as for the parent; not on a CPU.
        **kwargs: those of ``OptimWrapper``.

    Raises:
        ValueError: ``dtype`` is unknown, or ``use_fsdp`` on a CPU, or float16 or loss scaling on a
            CPU before PyTorch 2.3.
    """

    def __init__(
        self,
        loss_scale: str | float | dict = 'dynamic',
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        **kwargs,
    ) -> None:
        if isinstance(dtype, str):
            if dtype not in self.valid_dtypes:
                raise ValueError(
                    f'optim_wrapper.dtype must be one of {", ".join(self.valid_dtypes)}, '
                    f'got {dtype!r}'
                )
            dtype = getattr(torch, dtype)
        self._on_cpu = get_device() == 'cpu'
        if self._on_cpu and dtype is None:
            dtype = torch.bfloat16
        if loss_scale == 'dynamic' and dtype not in (None, torch.float16):
            loss_scale = dict(enabled=False)
        if not self._on_cpu:
            super().__init__(loss_scale, dtype, use_fsdp, **kwargs)
            return
        if use_fsdp:
            raise ValueError('optim_wrapper.use_fsdp=True needs an accelerator; there is none.')
        OptimWrapper.__init__(self, **kwargs)  # the parent's asserts that there is one
        self._scale_update_param = loss_scale if isinstance(loss_scale, float) else None
        options = dict(init_scale=loss_scale) if isinstance(loss_scale, float) else loss_scale
        self.loss_scaler = _cpu_scaler(dtype, **({} if options == 'dynamic' else options))
        self.cast_dtype = dtype
        print_log(
            f'Mixed precision without an accelerator: autocast of the CPU in {dtype}, '
            f'{"with" if self.loss_scaler.is_enabled() else "without"} loss scaling',
            logger='current',
        )

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the state of optimiser and scaler, whatever precision it was saved in."""
        if not state_dict.get('loss_scaler'):  # saved without scaling
            state_dict.pop('loss_scaler', None)
        super().load_state_dict(state_dict)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and no exchange of gradients that only accumulate."""
        if not self._on_cpu:
            with super().optim_context(model):
                yield
            return
        # mmengine's `autocast` takes bfloat16 alone on a CPU
        without_autocast = OptimWrapper.optim_context(self, model)
        with without_autocast, torch.autocast('cpu', dtype=self.cast_dtype):
            yield


def _cpu_scaler(dtype: torch.dtype, **options):
    """PyTorch's loss scaling of the CPU; before 2.3 there is none, only one that is disabled."""
    if torch_version() >= (2, 3):
        return torch.amp.GradScaler('cpu', **options)
    if dtype == torch.float16 or options.get('enabled', True):
        raise ValueError(
            'On a CPU optim_wrapper.dtype=float16 and optim_wrapper.loss_scale need PyTorch 2.3 or '
            f'newer, this is {torch.__version__}. Leave both out: bfloat16 needs no scaling.'
        )
    return torch.cuda.amp.GradScaler(**options)
