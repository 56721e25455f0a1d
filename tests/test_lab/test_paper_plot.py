import numpy as np
import pytest

from mmdet_dino_r1.lab.paper_plot import BenchmarkPanel, draw_benchmarks

PANEL = BenchmarkPanel('COCO', ['T', 'B'], [20.0, None], [[24.0], [37.2, 39.6]])


def test_a_panel_for_each_benchmark():
    one, three = draw_benchmarks([PANEL]), draw_benchmarks([PANEL] * 3)
    assert one.dtype == np.uint8 and one.shape[2] == 3
    assert three.shape[1] == pytest.approx(3 * one.shape[1], abs=2)


def test_measured_bars_are_filled_and_those_of_the_paper_are_not():
    def blue(measured):
        panel = BenchmarkPanel('COCO', ['T', 'B'], measured, PANEL.paper)
        return int((draw_benchmarks([panel]) == (0, 114, 178)).all(axis=-1).sum())

    legend = blue([None, None])
    assert legend < 1000 < blue([10.0, None]) - legend
    assert blue([20.0, None]) - legend == pytest.approx(2 * (blue([10.0, None]) - legend), rel=0.05)


def test_every_number_of_the_paper_reaches_the_picture():
    def drawn(paper):
        return draw_benchmarks([BenchmarkPanel('COCO', ['T', 'B'], [20.0, None], paper)])

    pictures = [drawn(paper) for paper in ([[24.0], []], [[24.0], [37.2]], [[24.0], [37.2, 39.6]])]
    assert (pictures[0] != pictures[1]).any() and (pictures[1] != pictures[2]).any()


def test_nothing_to_draw():
    with pytest.raises(ValueError, match='no benchmark'):
        draw_benchmarks([])
