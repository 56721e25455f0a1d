"""Two processes on the CPU: a bad gradient of one stops both, and each names its own images."""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[2]


def step(rank: int, port: int, folder: str) -> None:
    """A step under DDP in which only rank 1 has a bad gradient; run in its own process."""
    from conftest import CONFIGS, TWO_IMAGES, make_batch
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    from mmdet_dino_r1.utils.finite import StepDiagnostics

    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    _, samples = make_batch(TWO_IMAGES)
    model.step_diagnostics = StepDiagnostics(model, samples[rank : rank + 1])
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    cfg = Config.fromfile(CONFIGS / '_base_/schedules/adamw_12e.py').optim_wrapper
    wrapper = build_optim_wrapper(wrapped, cfg)
    before = model[0].weight.clone()
    out = wrapped(torch.ones(2, 4))
    if rank == 1:
        out.register_hook(lambda grad: grad * float('nan'))
    try:
        wrapper.update_params(out.sum())
    except FloatingPointError as error:
        assert torch.equal(before, model[0].weight)
        (Path(folder) / f'{rank}.txt').write_text(str(error))
    dist.barrier()
    # the group's own end was once seen to hang here after a step that stopped in its middle
    os._exit(0)


@pytest.mark.ddp
def test_both_stop(tmp_path):
    from conftest import run_two_ranks  # the file also runs without pytest's path

    run_two_ranks(__file__, tmp_path)
    for rank, other in ((0, 1), (1, 0)):
        message = (tmp_path / f'{rank}.txt').read_text()
        assert 'gradients are not, of 0.weight, 0.bias, 1.weight, 1.bias.' in message
        assert f'Images of this step of rank {rank}:\n  image id {rank}: ' in message
        assert f'image id {other}' not in message
        assert 'They are averaged over ranks: the cause may lie with another' in message


if __name__ == '__main__':
    sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
    step(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
