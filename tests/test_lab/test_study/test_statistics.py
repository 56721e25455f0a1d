from math import isnan, nan

import pytest

from mmdet_dino_r1.lab.study.statistics import (
    PairedDifference,
    paired_difference,
    summarise,
    verdict,
)


def test_a_summary_by_hand():
    told = summarise([2, 4, 9])
    # deviations -3, -1, 4: squares 26, by 2
    assert (told.mean, told.std, told.n) == (5, pytest.approx(13**0.5), 3)
    one = summarise([7])
    assert (one.mean, one.n) == (7, 1) and isnan(one.std)
    with pytest.raises(ValueError, match='no value to summarise'):
        summarise([])


def test_an_interval_by_hand():
    # differences 1, 2, 3; t of 2 degrees of freedom is 4.303, 4.303 / sqrt(3) = 2.484
    told = paired_difference({2: 13, 0: 11, 1: 22, 9: 50}, {0: 10, 1: 20, 2: 10, 8: 0})
    assert (told.mean, told.std, told.n, told.seeds) == (2, 1, 3, (0, 1, 2))
    assert (told.low, told.high) == pytest.approx((-0.484, 4.484), abs=5e-4)
    # t at 90 % is 2.920
    narrow = paired_difference({0: 1, 1: 2, 2: 3}, {0: 0, 1: 0, 2: 0}, confidence=0.9)
    assert narrow.high - narrow.mean == pytest.approx(2.920 / 3**0.5, abs=5e-4)


def test_one_seed_has_no_interval():
    told = paired_difference({4: 3.0}, {4: 1.0})
    assert (told.mean, told.n, told.seeds) == (2, 1, (4,))
    assert isnan(told.low) and isnan(told.high) and isnan(told.std)
    assert verdict(told) == 'not told apart'


def test_pairs_matter():
    # the same numbers, the baseline's in another order: only pairs that go together tell apart
    together = paired_difference({0: 11, 1: 21.1, 2: 31}, {0: 10, 1: 20, 2: 30})
    crossed = paired_difference({0: 11, 1: 21.1, 2: 31}, {0: 30, 1: 10, 2: 20})
    assert together.mean == pytest.approx(crossed.mean)
    assert (verdict(together), verdict(crossed)) == ('higher', 'not told apart')


@pytest.mark.parametrize(
    ('low', 'high', 'told'),
    [
        (0.1, 2, 'higher'),
        (-2, -0.1, 'lower'),
        (-1, 1, 'not told apart'),
        (0, 2, 'not told apart'),
        (-2, 0, 'not told apart'),
        (nan, nan, 'not told apart'),
    ],
)
def test_verdicts(low, high, told):
    assert verdict(PairedDifference((low + high) / 2, 1, 3, low, high, (0, 1, 2))) == told


def test_errors_in_words():
    said = 'The variant has seeds 0, 1 and the baseline seed 2: none in common'
    with pytest.raises(ValueError, match=said):
        paired_difference({1: 1, 0: 1}, {2: 1})
    with pytest.raises(ValueError, match='no seed and the baseline seed 2'):
        paired_difference({}, {2: 1})
    with pytest.raises(ValueError, match='between 0 and 1, like 0.95; this is 95'):
        paired_difference({0: 1}, {0: 1}, confidence=95)
