"""Two processes on the CPU: a rank without boxes must not make the other wait for ever."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[3]


def step(rank: int, port: int, folder: str) -> None:
    """One training step under DDP, without ``find_unused_parameters``; run in its own process."""
    from conftest import TWO_IMAGES, build_tiny, make_batch
    from mmengine.model import MMDistributedDataParallel
    from mmengine.registry import init_default_scope

    from mmdet_dino_r1.engine.hooks import ReferenceModelHook

    ground_truth = [TWO_IMAGES, [([], []), ([], [])]]  # of rank 0 and of rank 1
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = build_tiny(dict()).train()
    wrapped = MMDistributedDataParallel(model)
    hook = ReferenceModelHook()
    runner = SimpleNamespace(
        model=wrapped, train_dataloader=range(4), train_loop=None, iter=0, epoch=0
    )
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    torch.manual_seed(rank)
    losses = wrapped(*make_batch(ground_truth[rank]), mode='loss')
    model.parse_losses(losses)[0].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.save(gradients, f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.ddp
def test_rank_without_boxes_takes_part(tmp_path):
    from conftest import run_two_ranks  # the file also runs without pytest's path

    run_two_ranks(__file__, tmp_path)
    first, second = (torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1))
    assert sum(grad.abs().sum() > 0 for grad in first.values()) > 100
    for name, grad in first.items():
        assert torch.isfinite(grad).all(), name
        assert torch.equal(grad, second[name]), name


if __name__ == '__main__':
    sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
    step(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
