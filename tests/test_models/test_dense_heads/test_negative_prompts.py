"""What negatives do to the scores of an image, by hand."""

from math import inf, nan

import pytest
import torch
from conftest import build_tiny, make_batch

from mmdet_dino_r1.models.dense_heads.negative_prompts import GONE, NegativesRule, nearest_others
from mmdet_dino_r1.structures import PromptBank

LOGITS = torch.tensor([[2.0, 1.0, 0.5], [-1.0, 0.0, 3.0]])
LABELS = torch.tensor([4, 6, 9])
# the first two are alike; of three, centred, the third is alone
EMBEDDINGS = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]])
sigmoid = torch.sigmoid


def scores(given=None, logits=LOGITS, **rule):
    return NegativesRule(**rule).scores(logits, LABELS, EMBEDDINGS, given or {})


def test_nothing_in_force_changes_nothing():
    assert torch.equal(scores(margin=1.0, temperature=2.0), LOGITS.sigmoid())


def test_a_hard_negative_of_all():
    expected = torch.tensor([[GONE, GONE, GONE], [GONE, GONE, 3.0]])
    expected[1, 2] = expected[1, 2].sigmoid()
    assert torch.equal(scores({4: None})[0, 1:], torch.tensor([GONE, GONE]))
    assert torch.equal(scores({9: None})[:, 2], torch.tensor([GONE, GONE]))
    assert torch.equal(scores({9: None})[0, :2], sigmoid(LOGITS[0, :2]))
    # as high is gone, too
    assert scores({9: None}, torch.tensor([[0.5, 0.6, 0.5]])).tolist() == [
        [GONE, pytest.approx(0.6457, abs=1e-4), GONE]
    ]
    # unless the negative is allowed to be better by as much
    assert (scores({9: None}, margin=3.5)[1, :2] > 0).tolist() == [False, True]
    assert (scores({9: None}, margin=-2.0)[:, :2] > 0).tolist() == [[False, False]] * 2


def test_a_smooth_negative_of_all():
    found = scores({9: None}, margin=0.5, temperature=2.0)
    for query, column in ((0, 0), (1, 1)):
        own, other = LOGITS[query, column], LOGITS[query, 2]
        expected = own.sigmoid() * (1 - sigmoid((other - own - 0.5) / 2))
        torch.testing.assert_close(found[query, column], expected)
    assert (found[:, 2] == GONE).all()
    cold = scores({9: None}, temperature=1e-6)
    torch.testing.assert_close(cold.clamp(min=0), scores({9: None}).clamp(min=0))


def test_negatives_of_some():
    found = scores({9: [6], 4: []})
    assert torch.equal(found, torch.tensor([[GONE, LOGITS[0, 1].sigmoid(), GONE], [GONE] * 3]))
    # a label that the image has no prompt of is nothing
    assert torch.equal(scores({7: None}), LOGITS.sigmoid())


def test_the_nearest_others():
    ((rows, exist),) = nearest_others(EMBEDDINGS, 1, torch.zeros(3, dtype=torch.bool))
    assert rows.tolist()[:2] == [1, 0] and exist.all()
    found = scores(nearest=1)
    assert (found[:, :2] > 0).tolist() == [[True, False], [False, True]]
    # all others, however many are asked for
    every = torch.tensor([[2.0, GONE, GONE], [GONE, GONE, 3.0]])
    every[every > 0] = every[every > 0].sigmoid()
    assert torch.equal(scores(nearest=2), every) and torch.equal(scores(nearest=9), every)
    # given negatives are nobody's neighbours
    found = scores({6: [9]}, nearest=1)
    assert (found > 0).tolist() == [[True, False, False], [False, False, True]]


def test_order_padding_and_neighbours_change_nothing():
    draw = torch.manual_seed(0)
    logits, embeddings = torch.randn(7, 6, generator=draw), torch.randn(6, 8, generator=draw)
    labels, order = torch.arange(6), torch.randperm(6, generator=draw)
    rule, given = NegativesRule(2, 0.3, 0.7), {1: None, 4: [0, 2]}
    expected = rule.scores(logits, labels, embeddings, given)
    found = rule.scores(logits[:, order], labels[order], embeddings[order], given)
    torch.testing.assert_close(found, expected[:, order])
    torch.testing.assert_close(rule.scores(logits[3:4], labels, embeddings, given), expected[3:4])


def test_one_class_and_no_class():
    one = NegativesRule(nearest=3).scores(LOGITS[:, :1], LABELS[:1], EMBEDDINGS[:1], {})
    assert torch.equal(one, LOGITS[:, :1].sigmoid())
    none = NegativesRule(nearest=3).scores(LOGITS[:, :0], LABELS[:0], EMBEDDINGS[:0], {3: None})
    assert none.shape == (2, 0)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(warmth=1), r"unknown keys \['warmth'\]; known: nearest, margin, temperature"),
        (dict(temperature=-1), r'negatives\.temperature is a number of logits, 0 or more; got -1'),
        (dict(temperature=nan), r'negatives\.temperature'),
        (dict(margin=inf), r'negatives\.margin'),
        (dict(margin='much'), r"negatives\.margin is a number of logits; got 'much'"),
        (dict(nearest=1.5), r'negatives\.nearest is a number of classes'),
        (dict(nearest=-1), r'negatives\.nearest'),
    ],
)
def test_wrong_settings_are_refused_as_the_model_is_built(wrong, message):
    with pytest.raises(ValueError, match=message):
        NegativesRule.read(dict(negatives=wrong))


def test_of_the_model():
    """Nothing gone is given out, each image goes by its own prompts, chunks are refused."""
    with pytest.raises(ValueError, match=r'model\.test_cfg\.negatives\.margin'):
        build_tiny(test_cfg=dict(negatives=dict(margin='1')))
    model = build_tiny(test_cfg=dict(max_per_img=100)).eval()
    for branch in model.bbox_head.cls_branches:
        torch.nn.init.zeros_(branch.bias)
    embeddings = torch.randn(5, 256, generator=torch.manual_seed(1))
    model.set_prompt_bank(PromptBank(tuple('abcde'), embeddings))
    model.set_prompt_bank(PromptBank(tuple('abc'), embeddings[:3]), 'few')
    images, samples = make_batch([([], [])] * 2)
    samples[1].set_metainfo(dict(dataset_name='few'))

    @torch.no_grad()
    def found(only=slice(None)):
        results = model.predict(images[only], samples[only])
        return [result.pred_instances for result in results]

    plain = found()
    assert list(map(len, plain)) == [50, 30]
    model.test_cfg.negatives = dict(nearest=4)
    hard = found()  # the best class of a query is left
    assert list(map(len, hard)) == [10, 10]
    for of_image, before in zip(hard, plain, strict=True):
        boxes = before.bboxes.unique(dim=0, return_inverse=True)[1]
        best = [before.scores[boxes == query].max().item() for query in boxes.unique()]
        torch.testing.assert_close(of_image.scores, torch.tensor(sorted(best, reverse=True)))
    for index in range(2):  # whatever the other image has
        (alone,) = found(slice(index, index + 1))
        torch.testing.assert_close(alone.scores, hard[index].scores)
        assert torch.equal(alone.labels, hard[index].labels)
    model.test_cfg.negatives.temperature = 0.5
    soft = found()
    assert list(map(len, soft)) == [50, 30]
    assert (soft[0].scores <= plain[0].scores).all()
    model.test_cfg.chunk_size = 3
    with pytest.raises(ValueError, match=r'negatives\.nearest .*chunk_size=3 splits the 5 classes'):
        found()
    model.test_cfg.negatives = None
    assert list(map(len, found())) == [50, 30]
