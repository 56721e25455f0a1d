"""The same model on a CUDA device: it trains there, and says the same as on the CPU."""

import warnings
from copy import deepcopy

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch, with_prompts
from model_variants import JOINT

from mmdet_dino_r1.lab.benchmark.gpu_agreement import true_float32
from mmdet_dino_r1.structures import PromptBank

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device'),
]


def on_gpu(images, samples):
    return images.cuda(), [deepcopy(sample).to('cuda') for sample in samples]


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
@pytest.mark.parametrize('ground_truth', [TWO_IMAGES, [([], []), ([], [])]])
@pytest.mark.parametrize('variant', [{}, JOINT], ids=['each box', 'joint'])
def test_training_step(dtype, ground_truth, variant):
    model = build_tiny(dict(), **variant).cuda().train()
    model.reference_model.refresh(model)
    with torch.autocast('cuda', dtype or torch.bfloat16, enabled=dtype is not None):
        losses = model.loss(*on_gpu(*make_batch(ground_truth)))
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize('grqo', [None, {}])
def test_a_step_waits_three_times(grqo):
    """What the pretended device counts, told by PyTorch: labels, match costs, finite check."""
    model = build_tiny(grqo).cuda().train()
    model.reference_model.refresh(model)
    batch = on_gpu(*make_batch(TWO_IMAGES))
    model.loss(*batch)  # sizes are remembered from here on
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter('always')
            model.loss(*batch)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    waits = [str(warning) for warning in told if 'synchronizing' in str(warning.message)]
    assert len(waits) <= 3, '\n'.join(waits)


@torch.no_grad()
@pytest.mark.parametrize('carried', [False, True])
@pytest.mark.parametrize('variant', [{}, JOINT], ids=['each box', 'joint'])
def test_agrees_with_the_cpu(carried, variant):
    model = build_tiny(**variant).eval()
    names = tuple('abcde')
    model.set_prompt_bank(PromptBank(names, torch.randn(5, 256)))
    images, samples = make_batch([([], [])] * 2)
    if carried:
        samples = with_prompts(samples, [([[4, 4, 30, 30]], [3]), ([[9, 9, 50, 50]] * 2, [1, 2])])
    on_cpu = [s.pred_instances for s in model.predict(images, deepcopy(samples))]
    with true_float32():  # TF32 moves boxes by 4e-4 of the image
        found = model.cuda().predict(*on_gpu(images, samples))
    for one, other in zip(on_cpu, found, strict=True):
        other = other.pred_instances.cpu()
        torch.testing.assert_close(other.scores, one.scores, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.bboxes / 64, one.bboxes / 64, rtol=1e-4, atol=1e-4)
