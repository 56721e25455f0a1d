from math import nan

import pytest

from mmdet_dino_r1.lab.study.statistics import paired_difference, summarise, verdict


def test_a_summary_by_hand():
    told = summarise({0: 2, 1: 4, 5: 9})
    # deviations -3, -1, 4: squares 26, by 2
    assert told == dict(mean=5, std=pytest.approx(13**0.5), n=3, values={0: 2, 1: 4, 5: 9})
    assert summarise({3: 7}) == dict(mean=7, std=None, n=1, values={3: 7})
    assert summarise({}) is None


def test_an_interval_by_hand():
    # differences 1, 2, 3; t of 2 degrees of freedom is 4.303, 4.303 / sqrt(3) = 2.484
    told = paired_difference({2: 13, 0: 11, 1: 22, 9: 50}, {0: 10, 1: 20, 2: 10, 8: 0})
    assert (told['mean'], told['std'], told['n']) == (2, 1, 3)
    assert (told['seeds'], told['values']) == ([0, 1, 2], [1, 2, 3])
    assert (told['low'], told['high']) == pytest.approx((-0.484, 4.484), abs=5e-4)
    # of 1 it is 12.706
    two = paired_difference({0: 1, 1: 2}, {0: 0, 1: 0})
    assert two['high'] - two['mean'] == pytest.approx(12.706 * 0.5**0.5 / 2**0.5, abs=5e-4)


def test_one_seed_has_no_interval():
    told = paired_difference({4: 3.0}, {4: 1.0})
    assert (told['mean'], told['n'], told['seeds']) == (2, 1, [4])
    assert told['low'] is told['high'] is told['std'] is None
    assert told['verdict'] == 'not told apart'


def test_pairs_matter():
    # the same numbers, the baseline's in another order: only pairs that go together tell apart
    together = paired_difference({0: 11, 1: 21.1, 2: 31}, {0: 10, 1: 20, 2: 30})
    crossed = paired_difference({0: 11, 1: 21.1, 2: 31}, {0: 30, 1: 10, 2: 20})
    assert together['mean'] == pytest.approx(crossed['mean'])
    assert (together['verdict'], crossed['verdict']) == ('higher', 'not told apart')


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
    assert verdict(low, high) == told


def test_no_seed_in_common():
    assert paired_difference({1: 1, 0: 1}, {2: 1}) is None
    assert paired_difference({}, {2: 1}) is paired_difference({2: 1}, {}) is None
