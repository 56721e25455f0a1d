import numpy as np
import pytest

from mmdet_dino_r1.lab.study.plot import draw_axis, draw_differences, draw_exemplars
from mmdet_dino_r1.lab.study.statistics import verdict


def difference(mean, low, high, values):
    told = dict(mean=mean, low=low, high=high, values=values, n=len(values))
    return told | dict(verdict=verdict(low, high))


BETTER = ('better', difference(2.0, 1.0, 3.0, [1.5, 2.5]))
WORSE = ('worse', difference(-2.0, -3.0, -1.0, [-1.5, -2.5]))
EVEN = ('even', difference(0.5, -1.0, 2.0, [0.0, 1.0]))
GONE = ('gone', None)
BLUE, RED, GREY, PALE = (0, 114, 178), (213, 94, 0), (85, 85, 85), (158, 158, 158)


def places(image, colour, below=0.8):
    """(n, 2) rows and columns of a colour, above the key."""
    shown = image[: int(below * len(image))]
    return np.argwhere((shown == colour).all(axis=-1))


def told_of(rows, evaluations=('base',), **axis):
    """A report and its comparison: a baseline of AP 40 and variants, title and difference."""
    baseline, rows = ('SFT', None), dict(rows)
    variants = {
        title: dict(
            evaluations={
                name: dict(summary=dict(mean=40.0), difference=told) for name in evaluations
            }
        )
        for title, told in (baseline, *rows.items())
    }
    report = dict(primary=evaluations, variants={title: dict(title=title) for title in variants})
    comparison = dict(title='which?', baseline='SFT', variants=variants)
    return report, comparison | (dict(axis=axis) if axis else {})


def differences(*rows):
    return draw_differences(*told_of(rows))


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
    one = differences(('one seed', difference(2.0, None, None, [2.0])), EVEN)
    assert len(places(one, BLUE, 0.65)) == 0  # one seed tells nothing apart
    mark = places(one, GREY, 0.65)
    assert np.ptp(mark[mark[:, 0] < mark[:, 0].min() + 8][:, 1]) < 12


def test_a_wide_interval_is_cut_off():
    wide = ('two seeds', difference(2.0, -500.0, 504.0, [1.9, 2.1]))
    usual = places(differences(BETTER), BLUE, 0.6)
    beside = places(differences(BETTER, wide), BLUE, 0.6)
    assert np.ptp(beside[:, 1]) > 0.3 * np.ptp(usual[:, 1])


def test_a_variant_without_result_keeps_its_row():
    both, one = differences(BETTER, GONE), differences(BETTER)
    assert len(both) > len(one)


def test_a_panel_for_each_evaluation():
    one, two = (draw_differences(*told_of([BETTER], n)) for n in (['base'], ['base', 'novel']))
    assert two.shape[1] - one.shape[1] == pytest.approx(3.6 * 110, abs=2)


def test_along_a_number():
    axis = dict(label='weight', values=dict(SFT=0, worse=10, gone=1, better=0.1))
    linear, log = (
        draw_axis(*told_of([BETTER, GONE, WORSE], **axis, log=is_log)) for is_log in (False, True)
    )
    for image in (linear, log):
        better, worse = places(image, BLUE, 0.7), places(image, RED, 0.7)
        assert better[:, 1].max() < worse[:, 1].min()  # 0.1 left of 10
        assert better[:, 0].max() < worse[:, 0].min()  # higher AP above
        assert len(places(image, PALE)) > 0  # single seeds
    assert (linear != log).any()


def test_over_exemplars():
    points = dict(
        SFT={1: (30, 1), 16: (40, 1), 4: (36, 1)}, GRQO={1: (20, None), 4: None, 16: (25, None)}
    )
    variants = {}
    for title, of in points.items():
        told = {
            n: dict(zip(('mean', 'std'), ap, strict=True)) if ap else ap for n, ap in of.items()
        }
        tests = {f'base/g{n}': dict(AP=ap) for n, ap in told.items()}
        variants[title] = dict(title=title, evaluations=tests)
    report = dict(evaluations=['base/i', 'base/g1', 'base/g16', 'base/g4'], variants=variants)
    image = draw_exemplars(report, dict(title='which?', variants=dict.fromkeys(variants)))
    upper, lower = places(image, BLUE), places(image, RED)
    assert len(lower) > 100 and upper[:, 0].max() < lower[:, 0].max()
    assert upper[:, 0].min() < lower[:, 0].min()
    # both reach from 1 to 16
    assert np.ptp(upper[:, 1]) == pytest.approx(np.ptp(lower[:, 1]), abs=3)


def test_nothing_to_draw():
    assert differences(GONE) is None
    report, comparison = told_of([GONE], label='weight', values=dict(gone=1))
    assert draw_axis(report, comparison) is draw_axis(*told_of([BETTER])) is None
    assert draw_exemplars(report | dict(evaluations=['base/i']), comparison) is None
