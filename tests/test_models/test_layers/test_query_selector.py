"""Which tokens become queries."""

import pytest
import torch

from mmdet_dino_r1.models.layers import PromptContrastiveEmbed, VisualGuidedQuerySelector


def select(memory, prompts, mask, num_queries=2):
    similarity = PromptContrastiveEmbed(log_scale='none', bias=False)
    proposals = torch.arange(memory.shape[1] * 4.0).view(1, -1, 4).expand(len(memory), -1, -1)
    return VisualGuidedQuerySelector(num_queries)(
        memory,
        proposals,
        prompts,
        mask,
        similarity,
        lambda tokens: torch.zeros(*tokens.shape[:2], 4),
    )


def test_best_prompt_decides_by_hand():
    memory = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.0, 0.5]]])
    prompts = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    chosen = select(memory, prompts, torch.ones(1, 2, dtype=torch.bool))
    assert chosen.indices.tolist() == [[1, 2]], 'objectness 3 and 2'
    assert chosen.logits.tolist() == [[[0.0, 3.0], [2.0, 0.0]]]
    assert chosen.objectness_logits.tolist() == [[3.0, 2.0]]
    assert chosen.boxes_unact.tolist() == [[[4, 5, 6, 7], [8, 9, 10, 11]]]


def test_padding_prompts_never_decide():
    memory = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [2.0, 0.0]]])
    prompts = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    chosen = select(memory, prompts, torch.tensor([[True, False]]))
    assert chosen.indices.tolist() == [[2, 0]]


def test_objectness_elsewhere_is_read_at_the_same_tokens():
    memory, prompts = torch.randn(2, 6, 4), torch.randn(2, 3, 4)
    mask = torch.ones(2, 3, dtype=torch.bool)
    chosen = select(memory, prompts, mask)
    tokens = torch.stack([image[at] for image, at in zip(memory, chosen.indices, strict=True)])
    again = VisualGuidedQuerySelector.objectness_logits(
        tokens, prompts, mask, PromptContrastiveEmbed('none')
    )
    torch.testing.assert_close(again, chosen.objectness_logits)


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match='num_queries=9 but the image has only 3'):
        select(torch.zeros(1, 3, 2), torch.zeros(1, 1, 2), torch.ones(1, 1).bool(), 9)


def test_logit_by_hand_and_any_width():
    embed = PromptContrastiveEmbed(log_scale='auto', bias=True)
    feature, prompts = torch.ones(1, 1, 16), torch.full((1, 1203, 16), 0.5)
    mask = torch.ones(1, 1203, dtype=torch.bool)
    mask[0, 7] = False
    logits = embed(feature, prompts, mask)
    assert logits.shape == (1, 1, 1203)
    # 8 / sqrt(16) - log 99
    torch.testing.assert_close(logits[0, 0, 0], 2 - torch.tensor(99.0).log())
    assert logits[0, 0, 7] == torch.finfo(torch.float32).min, 'infinity times 0 is NaN'
