"""Two processes on the CPU: a rank without boxes must not make the other wait for ever."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import TWO_IMAGES, build_tiny, make_batch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope

from mmdet_dino_r1.engine.hooks import ReferenceModelHook

GROUND_TRUTH = [TWO_IMAGES, [([], []), ([], [])]]  # of rank 0 and of rank 1


def step(rank: int, port: int, folder: str) -> None:
    """One training step under DDP, without ``find_unused_parameters``."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = build_tiny(dict()).train()
    wrapped = MMDistributedDataParallel(model)
    hook = ReferenceModelHook()
    runner = SimpleNamespace(model=wrapped, train_dataloader=range(4), iter=0)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    torch.manual_seed(rank)
    images, samples = make_batch(GROUND_TRUTH[rank])
    losses = wrapped(images, samples, mode='loss')
    model.parse_losses(losses)[0].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.save(gradients, f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.ddp
def test_rank_without_boxes_takes_part(tmp_path, free_port):
    mp.spawn(step, args=(free_port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1))
    assert sum(grad.abs().sum() > 0 for grad in first.values()) > 100
    for name, grad in first.items():
        assert torch.isfinite(grad).all(), name
        assert torch.equal(grad, second[name]), name
