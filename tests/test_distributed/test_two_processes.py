"""What two processes of a training have in common, and with one process; real Runners, gloo."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import run_two_ranks

from test_distributed import cases

pytestmark = pytest.mark.ddp


@pytest.fixture(scope='module')
def folder(tiny_shapes, tmp_path_factory) -> Path:
    """Where two processes have run all cases."""
    folder = tmp_path_factory.mktemp('two_processes')
    shutil.copytree(tiny_shapes, folder / 'shapes')
    cases.prepare(folder)
    run_two_ranks(str(cases.ROOT / 'tests/test_distributed/ranks.py'), folder)
    return folder


def notes_of(folder: Path, case: str) -> list[dict]:
    """What each rank noted."""
    return [torch.load(folder / case / f'rank{rank}.pt', weights_only=False) for rank in (0, 1)]


def mean_losses(ranks: list[dict], step: int) -> dict:
    """Mean over ranks of each loss of a step."""
    first, second = (rank['losses'][step] for rank in ranks)
    return {name: (first[name] + second[name]) / 2 for name in first if 'loss' in name}


def assert_close_gradients(one: list, other: list, tolerance: float = 1e-5) -> None:
    """Tensor by tensor, to a share of the largest entry."""
    assert len(one) == len(other) > 100
    for gradient, wanted in zip(one, other, strict=True):
        largest = max(float(wanted.abs().max()), 1e-2)
        assert float((gradient - wanted).abs().max()) <= tolerance * largest


def assert_same_steps(ranks: list[dict], joint: dict, steps: range, tolerance: float) -> None:
    """The mean of the ranks' losses is the joint batch's, loss by loss."""
    for step in steps:
        wanted = {n: value for n, value in joint['losses'][step].items() if 'loss' in n}
        means = mean_losses(ranks, step)
        assert means.keys() == wanted.keys()
        for name, value in means.items():
            torch.testing.assert_close(
                value, wanted[name], rtol=tolerance, atol=tolerance, msg=f'{step} {name}'
            )


def test_a_rank_without_boxes_under_the_runner(folder):
    first, second = notes_of(folder, 'uneven')
    # rank 1 has no box at any step: no detection loss of boxes, no contrast
    for one, other in zip(first['losses'], second['losses'], strict=True):
        assert one['loss_bbox'] > 0 and other['loss_bbox'] == 0
        assert one['loss_prompt_text'] > 0 and other['loss_prompt_text'] == 0
        assert other['loss_prompt_contrast'] == 0
    assert any(one['loss_prompt_contrast'] > 0 for one in first['losses'])
    # which remembers the classes of the other rank
    assert torch.equal(first['memory'], second['memory']) and second['memory'].any()
    for one, other in zip(first['gradients'], second['gradients'], strict=True):
        assert all(map(torch.equal, one, other))
        assert sum(float(gradient.abs().max()) > 0 for gradient in one) > 100


def test_the_reference_model_is_the_same_on_all_ranks(folder):
    first, second = notes_of(folder, 'uneven')
    assert first['active'] == second['active'] == [False, True, True, True]
    # GRQO begins at iteration 1, and every second iteration the reference is the policy
    references, policies = first['references'], first['policies']
    assert references == second['references']
    assert [r == p for r, p in zip(references, policies, strict=True)] == [True, True, False]
    assert len(set(references)) == 2


def test_ranks_validate_with_one_bank_made_by_the_averaged_weights(folder):
    first, second = notes_of(folder, 'uneven')
    (one,), (other,) = first['banks'], second['banks']
    assert torch.equal(one['rows'], other['rows']) and one['made_by'] == other['made_by']
    checkpoint = torch.load(folder / 'uneven' / 'iter_4.pth', weights_only=False)
    # mmengine keeps the averaged weights as those of the model, and the policy beside them
    assert not any('reference' in name or 'snapshot' in name for name in checkpoint['state_dict'])
    assert not any('reference' in name for name in checkpoint['ema_state_dict'])


def test_recomputed_activations_change_nothing(folder):
    for kept, recomputed in zip(
        notes_of(folder, 'kept'), notes_of(folder, 'recomputed'), strict=True
    ):
        assert 'loss_grqo_kl' in kept['losses'][1] and len(kept['losses']) == 2
        for one, other in zip(kept['losses'], recomputed['losses'], strict=True):
            assert one.keys() == other.keys()
            for name, value in one.items():
                torch.testing.assert_close(other[name], value, rtol=1e-6, atol=1e-6, msg=name)
        for one, other in zip(kept['gradients'], recomputed['gradients'], strict=True):
            assert_close_gradients(other, one, 1e-6)


def test_accumulation_over_ranks(folder, tmp_path):
    first, second = notes_of(folder, 'accumulated2')
    # the third iteration is the last, and its step is taken though nothing follows
    assert first['stepped'] == second['stepped'] == [False, True, True]
    # in between the ranks keep their gradients to themselves (no_sync)
    apart, *together = zip(first['gradients'], second['gradients'], strict=True)
    assert not all(map(torch.equal, *apart))
    assert all(torch.equal(a, b) for pair in together for a, b in zip(*pair, strict=True))
    # hooks count iterations, not steps
    assert first['active'] == [False, True, True]
    assert first['references'] == first['policies'] == second['references']

    torch.manual_seed(0)
    shutil.copytree(folder / 'shapes', tmp_path / 'shapes')
    cases.train(cases.accumulated(tmp_path, num_ranks=1))
    joint = torch.load(tmp_path / 'accumulated1' / 'rank0.pt', weights_only=False)
    assert_same_steps([first, second], joint, range(3), 1e-5)
    for step in (1, 2):
        assert_close_gradients(first['gradients'][step], joint['gradients'][step])


needs_fsdp = pytest.mark.skipif(
    not cases.FSDP_WITHOUT_GPU, reason='FSDP without a GPU needs PyTorch 2.2'
)


@needs_fsdp
def test_fsdp_trains_and_validates_what_needs_no_reference(folder):
    first, second = notes_of(folder, 'sharded')
    assert 'loss_grqo_reward' in first['losses'][0] and 'loss_grqo_kl' not in first['losses'][0]
    assert torch.equal(first['banks'][0]['rows'], second['banks'][0]['rows'])
    assert 'coco/bbox_mAP' in first['metrics'][0]


@needs_fsdp
def test_fsdp_with_a_reference_is_refused_on_all_ranks(folder):
    for rank in (0, 1):
        message = (folder / 'sharded_reference' / f'refused{rank}.txt').read_text()
        assert message.startswith('FSDPStrategy shards the policy')
        assert not (folder / 'sharded_reference' / f'rank{rank}.pt').exists()


def test_each_run_leaves_one_picture_of_its_first_batch(folder):
    """Under DDP, gradient accumulation, EMA and FSDP."""
    drawn = {path.parts[-3] for path in folder.glob('*/*/first_batch.jpg')}
    sharded = {'sharded'} if cases.FSDP_WITHOUT_GPU else set()
    assert drawn == {'accumulated2', 'kept', 'recomputed', 'uneven'} | sharded
