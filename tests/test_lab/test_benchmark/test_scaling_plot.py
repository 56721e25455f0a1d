from dataclasses import replace

import numpy as np
import pytest

from mmdet_dino_r1.lab.benchmark.scaling_plot import ScalingPanel, draw_scaling

PANEL = ScalingPanel('queries', [225, 450, 900, 1800], [1.0, 1.1, 1.3, 1.9])
MEMORY, INFERENCE = (213, 94, 0), (86, 180, 233)


def count(image, colour):
    return int((image == colour).all(axis=-1).sum())


def test_a_panel_for_each_factor():
    one, five = draw_scaling([PANEL]), draw_scaling([PANEL] * 5)
    assert one.dtype == np.uint8 and one.shape[2] == 3
    assert five.shape[1] == pytest.approx(3 * one.shape[1], abs=2)


def test_curves_that_were_measured():
    bare = draw_scaling([PANEL])
    full = draw_scaling(
        [replace(PANEL, memory=[3.0, 3.1, 3.5, 4.4], inference_seconds=[0.2, 0.2, 0.3, 0.3])]
    )
    for colour in (MEMORY, INFERENCE):
        assert count(bare, colour) == 0 and count(full, colour) > 100


def test_a_memory_that_could_not_be_measured_breaks_nothing():
    assert draw_scaling([replace(PANEL, memory=[0.0, 0.1, 0.2, 0.3])]).any()


def test_nothing_to_draw():
    with pytest.raises(ValueError, match='no scaling'):
        draw_scaling([])
