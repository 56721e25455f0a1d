"""Few large parameter groups in the place of hundreds of small ones, and checked gradients."""

from __future__ import annotations

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from mmengine.optim import AmpOptimWrapper, DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from ..utils.compat import torch_version
from ..utils.wrappers import unwrapped
from .amp import CheckedAmpOptimWrapper, CheckedOptimWrapper

# what stands in for mmengine's own: `--amp` knows no other names
_CHECKED = {OptimWrapper: CheckedOptimWrapper, AmpOptimWrapper: CheckedAmpOptimWrapper}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with parameters of the same options in one group (ours).

    With a ``paramwise_cfg`` mmengine gives every parameter a group of its own, and PyTorch's
    optimisers update a group at a time. The updates are the same, the optimiser's state is not: a
    run that was started with mmengine's constructor is resumed with it (``--cfg-options
    optim_wrapper.constructor=DefaultOptimWrapperConstructor``).

    For mmengine's ``OptimWrapper`` and ``AmpOptimWrapper`` it builds the like-named wrappers of
    ``amp.py``, which stop at gradients that are not finite, and work in mixed precision on a CPU.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser and its wrapper for a model, within its own wrapper or without."""
        wanted = self.optim_wrapper_cfg.get('type', 'OptimWrapper')
        wanted = OPTIM_WRAPPERS.get(wanted) if isinstance(wanted, str) else wanted
        self.optim_wrapper_cfg['type'] = _CHECKED.get(wanted, wanted)
        if torch_version() < (2, 4) and next(model.parameters()).device.type == 'cpu':
            self.optimizer_cfg.pop('fused', None)  # had kernels for GPUs alone; the same updates
        wrapper = super().__call__(model)
        if wanted in _CHECKED:
            wrapper.watch(unwrapped(model))
        return wrapper

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: bool | None = None,
    ) -> None:
        """Add a module's parameters to ``params``; those of the whole model are then merged."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        merged: dict[tuple, dict] = {}
        for group in params:
            options = {name: value for name, value in group.items() if name != 'params'}
            key = tuple(sorted(options.items()))
            merged.setdefault(key, dict(options, params=[]))['params'] += group['params']
        params[:] = merged.values()
