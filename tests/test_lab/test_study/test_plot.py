from math import nan

import numpy as np
import pytest

from mmdet_dino_r1.lab.study.plot import (
    Difference,
    draw_along_number,
    draw_differences,
    draw_over_exemplars,
)

BETTER = Difference('better', 2.0, 1.0, 3.0, [1.5, 2.5])
WORSE = Difference('worse', -2.0, -3.0, -1.0, [-1.5, -2.5])
EVEN = Difference('even', 0.5, -1.0, 2.0, [0.0, 1.0])
BLUE, RED, GREY, PALE = (0, 114, 178), (213, 94, 0), (85, 85, 85), (158, 158, 158)


def places(image, colour, below=0.8):
    """(n, 2) rows and columns of a colour, above the key."""
    shown = image[: int(below * len(image))]
    return np.argwhere((shown == colour).all(axis=-1))


def differences(*rows):
    return draw_differences('which?', 'SFT', dict(base=rows))


def test_rows_and_sides():
    image = differences(BETTER, WORSE, EVEN)
    assert image.dtype == np.uint8 and image.shape[2] == 3
    better, worse, even = (places(image, colour, 0.65) for colour in (BLUE, RED, GREY))
    # first row on top, higher to the right
    assert better[:, 0].max() < worse[:, 0].min() < worse[:, 0].max() < np.median(even[:, 0])
    assert better[:, 1].min() > worse[:, 1].max()
    # both are two points long, the third three
    long = [np.ptp(found[:, 1]) for found in (better, worse)]
    assert long[0] == pytest.approx(long[1], abs=3)


def test_one_seed_has_no_whiskers():
    one = differences(Difference('one seed', 2.0, nan, nan, [2.0]), EVEN)
    assert len(places(one, BLUE, 0.65)) == 0  # one seed tells nothing apart
    mark = places(one, GREY, 0.65)
    assert np.ptp(mark[mark[:, 0] < mark[:, 0].min() + 8][:, 1]) < 12


def test_a_wide_interval_is_cut_off():
    wide = Difference('two seeds', 2.0, -500.0, 504.0, [1.9, 2.1])
    usual = places(differences(BETTER), BLUE, 0.6)
    beside = places(differences(BETTER, wide), BLUE, 0.6)
    assert np.ptp(beside[:, 1]) > 0.3 * np.ptp(usual[:, 1])


def test_a_variant_without_result_keeps_its_row():
    both, one = differences(BETTER, Difference('gone')), differences(BETTER)
    assert len(both) > len(one)
    assert len(differences(Difference('gone'))) == len(one)


def test_a_panel_for_each_evaluation():
    one, two = (
        draw_differences('which?', 'SFT', {name: [BETTER] for name in names})
        for names in (['base'], ['base', 'novel'])
    )
    assert two.shape[1] - one.shape[1] == pytest.approx(3.6 * 110, abs=2)


def test_along_a_number():
    variants = {0.1: BETTER, 1: Difference('gone'), 10: WORSE}
    told = ('which?', 'weight', 'SFT', dict(base=(40.0, variants)))
    linear, log = (draw_along_number(*told, log=log) for log in (False, True))
    for image in (linear, log):
        better, worse = places(image, BLUE, 0.7), places(image, RED, 0.7)
        assert better[:, 1].max() < worse[:, 1].min()  # 0.1 left of 10
        assert better[:, 0].max() < worse[:, 0].min()  # higher AP above
        assert len(places(image, PALE)) > 0  # single seeds
    assert (linear != log).any()


def test_a_logarithmic_axis_has_no_zero():
    panels = dict(base=(40.0, {0: EVEN, 1: BETTER}))
    with pytest.raises(ValueError, match=r'no place for 0 \(weight\); leave that variant out'):
        draw_along_number('which?', 'weight', 'SFT', panels, log=True)


def test_over_exemplars():
    first = [(1, 30, 1), (4, 36, 1), (16, 40, 1)]
    second = [(1, 20, nan), (16, 25, nan)]
    image = draw_over_exemplars('which?', dict(base=dict(SFT=first, GRQO=second)))
    upper, lower = places(image, BLUE), places(image, RED)
    assert len(lower) > 100 and upper[:, 0].max() < lower[:, 0].max()
    assert upper[:, 0].min() < lower[:, 0].min()
    # both reach from 1 to 16
    assert np.ptp(upper[:, 1]) == pytest.approx(np.ptp(lower[:, 1]), abs=3)


@pytest.mark.parametrize(
    'draw',
    [
        lambda: draw_differences('which?', 'SFT', {}),
        lambda: draw_along_number('which?', 'weight', 'SFT', {}),
        lambda: draw_over_exemplars('which?', dict(base={})),
    ],
)
def test_nothing_to_draw(draw):
    with pytest.raises(ValueError, match='to draw'):
        draw()
