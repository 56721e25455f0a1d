"""Spread, similarity and outliers of a bank, worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch

from mmdet_dino_r1.lab.prompt_banks.statistics import (
    bank_statistics,
    distances_to_others,
    far_exemplars,
    nearest_other,
)
from mmdet_dino_r1.structures import BankExemplars, PromptBank


def make_bank(embeddings, labels, names, keep=True):
    """A bank of the means, with its record; image ids count from 100."""
    embeddings, labels = torch.tensor(embeddings), torch.tensor(labels)
    number = len(labels)
    record = BankExemplars(
        labels,
        torch.arange(4.0 * number).reshape(number, 4),
        tuple(range(100, 100 + number)),
        tuple(f'{index}.jpg' for index in range(number)),
        embeddings if keep else None,
    )
    return PromptBank.from_exemplars(names, embeddings, labels).with_exemplars(record)


def unit(degrees):
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_similarity_is_taken_without_what_all_classes_share():
    corners = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    near, far = (
        bank_statistics(PromptBank(tuple('abcd'), corners + torch.tensor([shared, shared])))
        for shared in (0.0, 100.0)
    )
    expected = torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1], [0, 0, -1, 1]])
    torch.testing.assert_close(near.similarity, expected)
    torch.testing.assert_close(far.similarity, expected, atol=1e-4, rtol=0)


def test_two_classes_are_not_centred_since_they_would_always_be_opposite():
    statistics = bank_statistics(PromptBank(('cat', 'dog'), torch.tensor([[1.0, 0], [0.6, 0.8]])))
    assert statistics.nearest.tolist() == [1, 0]
    assert statistics.nearest_similarity.tolist() == pytest.approx([0.6, 0.6])


def test_one_class_has_no_neighbour():
    statistics = bank_statistics(PromptBank(('cat',), torch.ones(1, 2)))
    assert statistics.nearest.tolist() == [-1]
    assert statistics.nearest_similarity.isnan().all()
    assert statistics.by_confusability == [0]


def test_nearest_other_by_hand():
    similarity = torch.tensor([[1.0, 0.2, 0.5], [0.2, 1.0, -0.3], [0.5, -0.3, 1.0]])
    rows, values = nearest_other(similarity)
    assert rows.tolist() == [2, 0, 0]
    assert values.tolist() == pytest.approx([0.5, 0.2, 0.5])
    assert similarity.diagonal().tolist() == [1, 1, 1]  # the argument is left alone


def test_the_most_confusable_come_first():
    angles = [0, 90, 95, 180, 270]
    embeddings = torch.tensor([unit(angle) for angle in angles])
    bank = PromptBank(tuple('abcde'), embeddings - embeddings.mean(0))
    assert set(bank_statistics(bank).by_confusability[:2]) == {1, 2}


def test_an_exemplar_is_compared_with_the_others_of_its_class():
    embeddings = torch.tensor([[1.0, 0], [0, 1], [1, 0], [2, 0]])
    labels = torch.tensor([0, 0, 1, 1])
    distances = distances_to_others(embeddings, labels, torch.tensor([2, 2]))
    # of the first class each is at a right angle to the only other
    assert distances.tolist() == pytest.approx([1, 1, 0, 0])


def test_a_class_of_one_has_neither_distance_nor_spread():
    bank = make_bank([[1.0, 0], [1, 0], [0, 1]], [0, 0, 1], ['many', 'one'])
    statistics = bank_statistics(bank)
    assert statistics.counts.tolist() == [2, 1]
    assert statistics.spread[0].item() == pytest.approx(0)
    assert statistics.spread[1].isnan()
    assert statistics.outliers == ()


def test_spread_by_hand():
    bank = make_bank([unit(0), unit(60), unit(120)], [0, 0, 0], ['fan'])
    # 0 and 120 degrees against the mean of the others at 90 and 30: cos 90; 60 against 60
    assert bank_statistics(bank).spread.tolist() == pytest.approx([2 / 3])


class TestFar:
    """Far is median + max(3 robust deviations, 0.05), in a class of four or more."""

    def far(self, distances):
        number = len(distances)
        labels = torch.zeros(number, dtype=torch.long)
        far, usual = far_exemplars(torch.tensor(distances), labels, torch.tensor([number]))
        return far.tolist(), usual[0].item()

    def test_by_hand(self):
        # median 0.3, deviations 0.2 0.1 0 0.1 0.7, their median 0.1: far from 0.3 + 0.44478
        far, usual = self.far([0.1, 0.2, 0.3, 0.4, 1.0])
        assert usual == pytest.approx(0.3)
        assert far == [False, False, False, False, True]
        assert self.far([0.1, 0.2, 0.3, 0.4, 0.74])[0][-1] is False
        assert self.far([0.1, 0.2, 0.3, 0.4, 0.75])[0][-1] is True

    def test_nearly_equal_ones_are_spared(self):
        assert self.far([0.0, 0.0, 0.0, 0.0, 0.04])[0][-1] is False
        assert self.far([0.0, 0.0, 0.0, 0.0, 0.06])[0][-1] is True

    def test_three_are_too_few(self):
        assert not any(self.far([0.0, 0.0, 1.0])[0])
        assert any(self.far([0.0, 0.0, 0.0, 1.0])[0])

    def test_classes_do_not_mix(self):
        distances = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
        labels = torch.tensor([0, 1] * 4)
        far, usual = far_exemplars(distances, labels, torch.tensor([4, 4]))
        assert not far.any()
        assert usual.tolist() == [0, 1] * 4


def test_an_outlier_says_where_it_is_and_what_it_looks_like():
    right, up, left = [[1.0, 0]] * 4, [[0, 1.0]] * 4, [[-1.0, 0]] * 4
    bank = make_bank(
        [*right, *up, *left, [0.0, 1.0]], [0] * 4 + [1] * 4 + [2] * 4 + [0], ['right', 'up', 'left']
    )
    (outlier,) = bank_statistics(bank).outliers
    assert (outlier.exemplar, outlier.class_name) == (12, 'right')
    assert (outlier.image_id, outlier.file_name) == (112, '12.jpg')
    assert outlier.boxes == ((48, 49, 50, 51),)
    assert outlier.far and outlier.nearer_class == 'up'
    assert outlier.distance > outlier.usual + 0.5


def test_a_set_of_boxes_is_one_exemplar():
    """Of two boxes on the last image, of class 'right', which look like 'up'."""
    corners = [[1.0, 0]] * 4 + [[0, 1.0]] * 4 + [[-1.0, 0]] * 4 + [[0, 1.0]]
    labels = [0] * 4 + [1] * 4 + [2] * 4 + [0]
    names = ['right', 'up', 'left']
    single = make_bank(corners, labels, names)
    record = BankExemplars(
        torch.tensor([0, *labels]),
        torch.arange(56.0).reshape(14, 4),
        (112, *range(100, 113)),
        ('12.jpg', *single.exemplars.file_names),
        single.exemplars.embeddings,
        torch.tensor([12, *range(13)]),
    )
    alone, together = bank_statistics(single), bank_statistics(single.with_exemplars(record))
    assert together.counts.tolist() == [5, 4, 4]
    torch.testing.assert_close(together.spread, alone.spread)
    (outlier,) = together.outliers
    assert outlier == replace(alone.outliers[0], boxes=((0, 1, 2, 3), (52, 53, 54, 55)))
    assert (outlier.exemplar, outlier.image_id) == (12, 112)


def test_far_ones_come_before_those_that_look_like_another_class():
    far = [unit(0)] * 6 + [unit(-50)]
    two_minds = [unit(120)] * 3 + [unit(100), unit(200)]
    other = [unit(215)] * 5
    bank = make_bank(
        far + two_minds + other, [0] * 7 + [1] * 5 + [2] * 5, ['tight', 'mixed', 'other']
    )
    outliers = bank_statistics(bank).outliers
    flags = [outlier.far for outlier in outliers]
    assert flags == sorted(flags, reverse=True)
    assert {6, 11} <= {outlier.exemplar for outlier in outliers}


def test_means_alone_tell_counts_but_no_spread():
    statistics = bank_statistics(make_bank([[1.0, 0], [0, 1]], [0, 1], ['a', 'b'], keep=False))
    assert statistics.counts.tolist() == [1, 1]
    assert statistics.spread is None and statistics.outliers is None


def test_without_a_record_there_are_no_counts():
    statistics = bank_statistics(PromptBank(('a', 'b'), torch.eye(2)))
    assert statistics.counts is None and statistics.outliers is None


def test_equal_classes_and_half_precision_stay_finite():
    same = bank_statistics(PromptBank(tuple('abc'), torch.ones(3, 4)))
    assert same.similarity.isfinite().all()
    bank = make_bank([[1.0, 0], [1, 0.1], [0, 1]], [0, 0, 1], ['a', 'b'])
    record = replace(bank.exemplars, embeddings=bank.exemplars.embeddings.half())
    half = replace(bank, embeddings=bank.embeddings.half(), exemplars=record)
    spreads = [bank_statistics(one).spread for one in (half, bank)]
    torch.testing.assert_close(*spreads, atol=1e-3, rtol=0, equal_nan=True)


def test_an_empty_record_is_no_obstacle():
    record = BankExemplars(torch.zeros(0).long(), torch.zeros(0, 4), (), (), torch.zeros(0, 2))
    statistics = bank_statistics(PromptBank(('a', 'b'), torch.eye(2)).with_exemplars(record))
    assert statistics.counts.tolist() == [0, 0]
    assert statistics.spread.isnan().all() and statistics.outliers == ()


def test_tuned_rows_count_for_the_similarity_and_exemplars_for_the_rest():
    corners = [[1.0, 0]] * 4 + [[0, 1.0]] * 4 + [[-1.0, 0]] * 4 + [[0, 1.0]]
    labels = [0] * 4 + [1] * 4 + [2] * 4 + [0]
    bank = make_bank(corners, labels, ['right', 'up', 'left'])
    rows = torch.tensor([[1.0, 0], [0.0, -1], [0.0, 1]])
    before, after = bank_statistics(bank), bank_statistics(replace(bank, embeddings=rows))
    torch.testing.assert_close(
        after.similarity, bank_statistics(PromptBank(bank.class_names, rows)).similarity
    )
    assert not torch.allclose(after.similarity, before.similarity)
    assert torch.equal(after.spread, before.spread) and after.outliers == before.outliers
