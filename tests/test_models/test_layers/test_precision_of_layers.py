"""Large activations and padding under autocast: what would overflow or be infinite is not."""

import pytest
import torch
from mmdet.registry import MODELS
from test_engine.test_precision import HALVES
from test_models.test_layers.test_attention import bi_attention

from mmdet_dino_r1.models.layers import PromptContrastiveEmbed
from mmdet_dino_r1.models.layers.attention import FusedBiAttention
from mmdet_dino_r1.models.losses import objectness_kl
from mmdet_dino_r1.models.task_modules import PromptFocalLossCost
from mmdet_dino_r1.utils.compat import torch_version


@pytest.mark.parametrize('path', ['_through_prompts', '_through_tokens'])
@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize('padded', [False, True])
def test_fusion_of_large_activations(path, dtype, padded):
    """Logits beyond 65504, the largest number of float16."""
    if torch_version() < (2, 2) and padded and path == '_through_tokens':
        pytest.skip('PyTorch 2.1 has no fused kernel with a mask on a CPU: logits are in half')
    attention = bi_attention(FusedBiAttention)
    for projection in (attention.v_proj, attention.l_proj):
        torch.nn.init.eye_(projection.weight)
    vision, prompts = 900 * torch.randn(2, 9, 16), 900 * torch.randn(2, 5, 16)
    assert (vision @ prompts.transpose(1, 2)).abs().max() > 2 * 65504
    vision.requires_grad_()
    masks = (None, None)
    if padded:
        masks = (torch.arange(9).expand(2, 9) > 6, torch.arange(5).expand(2, 5) > 2)
    with torch.autocast('cpu', dtype):
        half = getattr(attention, path)(vision, prompts, *masks)
    (half[0].float().sum() + half[1].float().sum()).backward()
    assert vision.grad.isfinite().all()
    full = getattr(attention, path)(vision, prompts, *masks)
    for mine, expected in zip(half, full, strict=True):
        error = (mine.float() - expected).abs().max() / expected.abs().max()
        assert error < (0.05 if dtype == torch.bfloat16 else 0.01)


@pytest.mark.parametrize('dtype', HALVES)
def test_similarity_of_large_features_and_fine_differences(dtype):
    embed = PromptContrastiveEmbed(log_scale='auto', bias=True)
    visible = torch.ones(1, 1, dtype=torch.bool)
    with torch.autocast('cpu', dtype):
        large = embed(torch.full((1, 1, 256), 300.0), torch.full((1, 1, 256), 300.0), visible)
        # 16 and a 4096th more: equal in half precision, told apart here
        features = torch.ones(1, 2, 256)
        features[0, 1, 0] += 0.0625
        close = embed(features, torch.ones(1, 1, 256), visible)[0, :, 0]
    torch.testing.assert_close(large.item(), 300.0 * 300 * 16 - 4.59512, rtol=1e-6, atol=0)
    torch.testing.assert_close(close[1] - close[0], torch.tensor(0.0625 / 16), rtol=1e-3, atol=0)


def test_padding_prompts_add_nothing_to_costs_losses_and_kl():
    """Equal, number for number, to the same without padding; infinity would make NaN of it."""
    torch.manual_seed(0)
    embed = PromptContrastiveEmbed(log_scale='auto', bias=True)
    features = torch.randn(2, 6, 16, requires_grad=True)
    prompts = torch.randn(2, 5, 16)
    visible = torch.tensor([[True, True, True, False, False], [True, True, True, False, False]])
    padded, alone = (
        embed(features, prompts, visible),
        embed(features, prompts[:, :3], visible[:, :3]),
    )
    assert padded.isfinite().all()

    targets = torch.zeros(2, 6, 5)
    targets[0, 0, 1] = targets[1, 3, 2] = 1
    focal = MODELS.build(dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25))
    losses = [
        focal(logits.flatten(0, 1), wanted.flatten(0, 1), reduction_override='none').sum(-1)
        for logits, wanted in ((padded, targets), (alone, targets[..., :3]))
    ]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-7)
    gradients = [torch.autograd.grad(loss.sum(), features, retain_graph=True)[0] for loss in losses]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-7)

    one_hot = torch.eye(5)[:3]
    cost = PromptFocalLossCost(weight=2.0)
    costs = [
        cost._focal_loss_cost(logits[0], wanted)
        for logits, wanted in ((padded, one_hot), (alone, one_hot[:, :3]))
    ]
    torch.testing.assert_close(*costs, rtol=1e-6, atol=1e-5)

    best, best_alone = padded.max(dim=-1).values, alone.max(dim=-1).values
    assert torch.equal(best.topk(3).indices, best_alone.topk(3).indices)
    reference = torch.randn(2, 6)
    kl = [objectness_kl(logits, reference) for logits in (best, best_alone)]
    torch.testing.assert_close(*kl)
