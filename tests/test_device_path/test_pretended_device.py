"""The pretended device itself: what CUDA refuses raises, and what costs a wait is counted."""

import pytest
import torch
from pretended_device import DEVICE, Pretended, host_of, to_device
from torch import nn

from mmdet_dino_r1.utils import device_copy


def on_device(*shape: int) -> Pretended:
    return to_device(torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape))


@pytest.mark.parametrize(
    'mixed',
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([here, there]),
        lambda there, here: torch.where(there > 0, there, here),
        lambda there, here: here[there.long() - 1],
        lambda there, here: nn.functional.linear(there[None], here[None]),
        lambda there, here: here.index_add_(0, torch.arange(3), there),
    ],
)
def test_both_devices_in_one_operator_raise(device, mixed):
    with pytest.raises(RuntimeError, match='mixes devices|a CPU tensor indexed'):
        mixed(on_device(3), torch.ones(3))


def test_scalars_mix_and_results_stay_on_the_device(device):
    there = on_device(3) * torch.tensor(2.0) + 1 + torch.ones(3, device=DEVICE)
    assert there.is_cuda and there.device == DEVICE
    assert host_of(there).tolist() == [4, 6, 8]
    device.clear()
    assert there.sum().item() == 18
    device.check(waits=1, copies=0)


@pytest.mark.parametrize(
    'read',
    [
        lambda there: there.sum().item(),
        lambda there: float(there[0]),
        lambda there: bool(there[0] > 0),
        lambda there: 1 if (there > 0).all() else 0,
        lambda there: there.tolist(),
        lambda there: there.cpu(),
        lambda there: there.to('cpu', non_blocking=True),
        lambda there: there.nonzero(),
        lambda there: there[there > 1],
        lambda there: there.unique(),
        lambda there: torch.zeros(3).copy_(there),
    ],
)
def test_each_of_these_waits_once(device, read):
    there = on_device(3)
    read(there)
    assert device.waits.total() == 1 and not device.copies


@pytest.mark.parametrize(
    'copy',
    [
        lambda there: torch.ones(3).to(DEVICE),
        lambda there: torch.ones(3).to(DEVICE, non_blocking=True),  # not pinned
        lambda there: torch.ones(3).pin_memory().to(DEVICE),
        lambda there: torch.ones(3).to(there),
        lambda there: torch.tensor([1, 2, 3], device=DEVICE),
        lambda there: torch.as_tensor([1, 2, 3], device=DEVICE),
        lambda there: there.new_tensor([1, 2, 3]),
        lambda there: there[torch.tensor([0, 2])],
        lambda there: there.copy_(torch.ones(3)),
    ],
)
def test_a_copy_from_ordinary_memory_is_a_wait(device, copy):
    assert isinstance(copy(on_device(3)), Pretended)
    assert device.copies.total() == device.waits.total() == 1


def test_a_pinned_copy_that_need_not_finish_is_none(device):
    moved = torch.ones(3).pin_memory().to(DEVICE, non_blocking=True)
    assert isinstance(moved, Pretended)
    device.check(waits=0, copies=1)


def test_too_many_fail_and_are_named(device):
    device_copy.to_device(DEVICE, torch.ones(1))
    with pytest.raises(AssertionError, match=r'1 x to the device, at utils/device_copy\.py'):
        device.check(waits=0, copies=0)


def test_numpy_refuses(device):
    with pytest.raises(TypeError, match='on the device'):
        on_device(3).numpy()


def test_modules_train_there_as_on_the_cpu(device, assert_equal):
    layers = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))
    there = to_device(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1)))
    there.load_state_dict({name: to_device(v) for name, v in layers.state_dict().items()})
    inputs = torch.randn(5, 4)
    for model, given in ((layers, inputs), (there, to_device(inputs))):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        model(given).square().mean().backward()
        optimiser.step()
    assert_equal(dict(there.named_parameters()), dict(layers.named_parameters()))
    device.check(waits=0, copies=0)


# --- the one place of the package that copies ---------------------------------------------

TENSORS = (
    torch.tensor([[1, -2, 3]]),
    torch.tensor([True, False, True]),
    torch.tensor(0.1),
    torch.rand(3, 5).t(),
    torch.empty(0, 4),
    torch.tensor([0.1], dtype=torch.double),
    torch.tensor([7], dtype=torch.uint8),
)


def test_tensors_of_all_types_go_in_one_copy(device):
    for there, here in zip(device_copy.to_device(DEVICE, *TENSORS), TENSORS, strict=True):
        assert there.dtype == here.dtype and torch.equal(host_of(there), here)
    device.check(waits=0, copies=1)


def test_on_the_cpu_nothing_is_copied():
    copies = device_copy.to_device(torch.device('cpu'), *TENSORS)
    assert all(copy is tensor for copy, tensor in zip(copies, TENSORS, strict=True))


def test_sizes_are_remembered(device):
    first = device_copy.box_scales([(48, 64, 3), (32, 64)], DEVICE)
    assert host_of(first).tolist() == [[64, 48, 64, 48], [64, 32, 64, 32]]
    assert device_copy.box_scales([(48, 64), (32, 64)], DEVICE) is first
    device.check(waits=0, copies=1)
