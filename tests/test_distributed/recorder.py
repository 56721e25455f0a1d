"""A project's own file, named in ``custom_imports``: notes what a training did, rank by rank."""

from types import SimpleNamespace

import torch
from mmdet.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from mmdet_dino_r1.engine.bank_builder import weights_fingerprint
from mmdet_dino_r1.utils.wrappers import unwrapped


@OPTIM_WRAPPERS.register_module()
class RecordingOptimWrapper(OptimWrapper):
    """Keeps the gradients as they are after the first backward passes, and notes the steps."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gradients, self.stepped = [], []

    def backward(self, loss, **kwargs):
        super().backward(loss, **kwargs)
        self.stepped.append(False)
        if len(self.stepped) <= 3:
            parameters = [p for group in self.optimizer.param_groups for p in group['params']]
            self.gradients.append([p.grad.clone() for p in parameters if p.requires_grad])

    def step(self, **kwargs):
        self.stepped[-1] = True
        super().step(**kwargs)


@HOOKS.register_module()
class Recorder(Hook):
    """Saves ``<work dir>/rank<N>.pt`` at the end of a training."""

    priority = 'VERY_LOW'  # after the prompts were made and the reference was refreshed

    def before_train(self, runner):
        names = ('losses', 'references', 'policies', 'active', 'banks', 'metrics')
        self.notes = {name: [] for name in names}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        torch.manual_seed(runner.iter)  # the same exemplars, however many processes
        model = unwrapped(runner.model)
        loss_grqo = model.bbox_head.loss_grqo
        self.notes['active'].append(loss_grqo is not None and loss_grqo.active)
        if model.reference_model.is_ready:
            self.notes['references'].append(weights_fingerprint(model.reference_model))
            weights = model.state_dict()
            copied = {name: weights[name] for name in model.reference_model.state_dict()}
            holder = SimpleNamespace(state_dict=lambda: copied)
            self.notes['policies'].append(weights_fingerprint(holder))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.notes['losses'].append(
            {name: value.detach().clone() for name, value in outputs.items()}
        )

    def after_val_epoch(self, runner, metrics=None):
        bank = unwrapped(runner.model).prompt_bank
        self.notes['banks'].append(dict(rows=bank.embeddings, made_by=bank.provenance['weights']))
        self.notes['metrics'].append(metrics)

    def after_train(self, runner):
        if isinstance(runner.optim_wrapper, RecordingOptimWrapper):
            self.notes['gradients'] = runner.optim_wrapper.gradients
            self.notes['stepped'] = runner.optim_wrapper.stepped
        contrast = unwrapped(runner.model).prompt_contrast
        self.notes['memory'] = None if contrast is None else contrast.memory
        torch.save(self.notes, f'{runner.work_dir}/rank{get_rank()}.pt')
