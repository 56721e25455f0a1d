"""How much of the training signal comes from GRQO."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ...utils.wrappers import unwrapped


@HOOKS.register_module()
class GradientShareHook(Hook):
    """Log the norm of GRQO's gradient as a share of the detection losses', on request.

    At each interval, before the step, the same batch goes through the model once more and the
    two sums of losses are differentiated apart. It costs about a step each time and leaves no
    trace. Logged on each rank's own batch: ``grqo_grad_share`` and ``grqo_grad_cosine`` (of the
    directions: 1 the same, 0 orthogonal).

    Args:
        interval: iterations between measurements. Where the reference model has just been
            refreshed the KL has no gradient: an interval that divides an epoch sees such a step in
            each, one that does not sees the KL at all its ages.
    """

    # after ReferenceModelHook, which may switch GRQO on in this very iteration
    priority = 'LOW'

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Measure on the batch about to be trained on."""
        if runner.iter % self.interval:
            return
        model = unwrapped(runner.model)
        if model.bbox_head.loss_grqo is None or not model.bbox_head.loss_grqo.active:
            return
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        devices = [p.device for p in model.parameters() if p.is_cuda][:1]
        with torch.random.fork_rng(devices):
            losses = model(**model.data_preprocessor(data_batch, True), mode='loss')
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        grqo, detection = split_losses(losses)
        parameters = [p for p in model.parameters() if p.requires_grad]
        share, cosine = gradient_share(grqo, detection, parameters)
        runner.message_hub.update_scalar('train/grqo_grad_share', share)
        runner.message_hub.update_scalar('train/grqo_grad_cosine', cosine)


def split_losses(losses: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Sum of the GRQO losses, and of all the others that are optimised; both scalar."""
    optimised = {name: value for name, value in losses.items() if 'loss' in name}
    grqo = sum(value for name, value in optimised.items() if 'grqo' in name)
    return grqo, sum(value for name, value in optimised.items() if 'grqo' not in name)


def gradient_share(
    part: Tensor, rest: Tensor, parameters: list[torch.nn.Parameter]
) -> tuple[float, float]:
    """Of scalar losses, ``|grad part| / |grad rest|`` and the cosine (0 where one vanishes)."""
    options = dict(retain_graph=True, allow_unused=True, materialize_grads=True)
    grads = [torch.autograd.grad(loss, parameters, **options) for loss in (part, rest)]
    of_part, of_rest = (torch.cat([g.flatten().double() for g in each]) for each in grads)
    norms = of_part.norm(), of_rest.norm()
    cosine = of_part @ of_rest / (norms[0] * norms[1]).clamp(min=torch.finfo(torch.double).tiny)
    return (norms[0] / norms[1]).item(), cosine.item()
