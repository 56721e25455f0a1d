"""Few large parameter groups in the place of hundreds of small ones."""

from __future__ import annotations

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with parameters of the same options in one group (ours).

    With a ``paramwise_cfg`` mmengine gives every parameter a group of its own, and PyTorch's
    optimisers, which update a whole group at once, are left with one tensor at a time. The updates
    are the same. The state of an optimiser depends on the groups: a run that was started with
    mmengine's constructor is resumed with it (``--cfg-options
    optim_wrapper.constructor=DefaultOptimWrapperConstructor``).
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: bool | None = None,
    ) -> None:
        """Add the parameters of ``module``; the groups of a whole model are merged at the end.

        Args:
            params: groups so far, changed in place.
            module: whose parameters to add.
            prefix: the module's name within the model; empty: it is the model.
            is_dcn_module: see the parent.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        merged: dict[tuple, dict] = {}
        for group in params:
            options = {name: value for name, value in group.items() if name != 'params'}
            key = tuple(sorted(options.items()))
            merged.setdefault(key, dict(options, params=[]))['params'] += group['params']
        params[:] = merged.values()
