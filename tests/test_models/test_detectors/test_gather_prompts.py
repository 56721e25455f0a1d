"""Two processes on the CPU that share prompts: as one process with the joint batch."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[3]

NO_BOXES = ([], [])
FIRST = [([[4, 4, 24, 30], [30, 20, 60, 50]], [2, 5]), ([[8, 8, 40, 40]], [7])]
SECOND = [([[20, 4, 44, 30], [10, 20, 30, 60]], [2, 9]), NO_BOXES]

# ranks' batches, options of the sampler, whether to compare the denoising losses: mmdet sizes
# and pads the groups by the fullest image of the rank, so those must agree
CASES = {
    'one box per class': ((FIRST, SECOND), {}, True),
    'two boxes, of other images': (
        (FIRST, SECOND),
        dict(exemplars_per_class=2, prefer_other_image=True),
        True,
    ),
    'late, jointly encoded': ((FIRST, SECOND), dict(variant='late_joint'), True),
    'capped': ((FIRST, SECOND), dict(max_prompts=2), False),
    'a rank without boxes': ((FIRST, [NO_BOXES, NO_BOXES]), {}, False),
    'no boxes at all': (([NO_BOXES] * 2, [NO_BOXES] * 2), {}, False),
}


def build(options: dict):
    """A model that has moved on from its reference; nothing random but what is drawn."""
    from conftest import build_tiny, without_dropout
    from model_variants import VARIANTS

    options = dict(options)
    variant = VARIANTS.get(options.pop('variant', None), {})
    torch.manual_seed(0)
    model = build_tiny(
        dict(reward_weight=1.0, kl_weight=10.0),
        gather_prompts=True,
        prompt_sampler=dict(type='InBatchPromptSampler', **options),
        # the queries are still there, but always the same
        dn_cfg=dict(label_noise_scale=1e-9, box_noise_scale=1e-9),
        **variant,
    ).train()
    without_dropout(model)
    model.reference_model.refresh(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return model


def step(model, batch: tuple, denoising: bool, wrapped=None) -> dict:
    """Forward and backward: losses, gradients, and the prompts of policy and reference."""
    prompts = {}
    for name, detector in dict(policy=model, reference=model.reference_model._snapshot).items():
        forward = detector.training_prompts

        def noting(*args, name=name, forward=forward):
            made = forward(*args)
            prompts[name] = made.embeddings.detach()
            return made

        detector.training_prompts = noting
    losses = (wrapped or model)(*batch, mode='loss')
    if not denoising:  # in the graph, but without weight
        losses = {n: value * (0 if 'dn_' in n else 1) for n, value in losses.items()}
    model.parse_losses(losses)[0].backward()
    return dict(
        losses={name: value.detach() for name, value in losses.items()},
        gradients={name: parameter.grad for name, parameter in model.named_parameters()},
        prompts=prompts,
    )


def run_rank(rank: int, port: int, folder: str) -> None:
    """All cases under DDP, without ``find_unused_parameters``; run in its own process."""
    from conftest import make_batch
    from mmengine.model import MMDistributedDataParallel
    from mmengine.registry import init_default_scope

    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    init_default_scope('mmdet')
    results = {}
    for name, (batches, options, denoising) in CASES.items():
        model = build(options)
        wrapped = MMDistributedDataParallel(model)
        images, samples = make_batch([*batches[0], *batches[1]])
        mine = slice(0, 2) if rank == 0 else slice(2, 4)
        torch.manual_seed(100 + rank)
        results[name] = step(model, (images[mine], samples[mine]), denoising, wrapped)
    torch.save(results, f'{folder}/{rank}.pt')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def two_ranks(tmp_path_factory):
    """What both ranks computed, case by case."""
    from conftest import run_two_ranks  # the file also runs without pytest's path

    folder = tmp_path_factory.mktemp('ranks')
    run_two_ranks(__file__, folder)
    return [torch.load(folder / f'{rank}.pt', weights_only=True) for rank in (0, 1)]


@pytest.mark.ddp
@pytest.mark.parametrize('case', CASES)
def test_two_ranks_are_one_process_with_the_joint_batch(two_ranks, case):
    from conftest import make_batch

    batches, options, denoising = CASES[case]
    model = build(options)
    # the ordinary path of one process, given the choice that the ranks make
    model.gather_prompts = False
    sampler = model.prompt_sampler
    model.prompt_sampler = lambda boxes: replace(sampler.across_ranks(boxes), local_indices=None)
    torch.manual_seed(100)
    joint = step(model, make_batch([*batches[0], *batches[1]]), denoising)
    first, second = (rank[case] for rank in two_ranks)

    for part in ('policy', 'reference') if case != 'no boxes at all' else ():
        prompts = torch.cat([first['prompts'][part], second['prompts'][part]])
        torch.testing.assert_close(prompts, joint['prompts'][part], rtol=1e-5, atol=1e-5)
    # (without any box the placeholder is each rank's first image, and teaches nothing)
    # the mean over ranks of a loss is the joint batch's: its divisors are means over ranks
    for name, value in joint['losses'].items():
        if 'loss' in name:
            mean = (first['losses'][name] + second['losses'][name]) / 2
            torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-5, msg=name)
    # so is that of the gradients, which DDP takes
    for name, gradient in joint['gradients'].items():
        assert torch.equal(first['gradients'][name], second['gradients'][name]), name
        # sums in another order: to 1e-5 of the tensor's largest entry
        atol = 1e-5 * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(
            first['gradients'][name], gradient, rtol=1e-4, atol=atol, msg=name
        )


@pytest.mark.ddp
def test_there_was_something_to_compare(two_ranks):
    for case, (batches, options, _) in CASES.items():
        first, second = (rank[case] for rank in two_ranks)
        taught = first['gradients']['prompt_encoder.content.weight'].abs().max()
        if case == 'no boxes at all':
            assert taught == 0
            continue
        assert taught > 1e-3, case
        assert first['losses']['loss_grqo_kl'] > 1e-3, 'the reference is another model'
        classes = {label for batch in batches for _, labels in batch for label in labels}
        num_prompts = min(len(classes), options.get('max_prompts', 99))
        for part in ('policy', 'reference'):
            assert first['prompts'][part].shape[1] == second['prompts'][part].shape[1]
            assert first['prompts'][part].shape[1] == num_prompts
    # the rank without boxes learns from the other's prompts: all are negatives
    _, empty = (rank['a rank without boxes'] for rank in two_ranks)
    assert empty['losses']['loss_cls'] > 0 and empty['losses']['loss_bbox'] == 0


if __name__ == '__main__':
    sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
    run_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
