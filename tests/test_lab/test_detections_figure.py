from dataclasses import replace

import numpy as np
import pytest

from mmdet_dino_r1.lab.detections_figure import (
    COLOURS,
    OTHER,
    DetectionRow,
    colour_of,
    draw_prompts_and_detections,
)

GREY = 200


@pytest.fixture
def row():
    """Two classes; each found once, and one detection of another class."""
    return DetectionRow(
        title='an image',
        class_names=['cat', 'dog'],
        prompts=[[np.full((10, 20, 3), GREY, np.uint8)] * 2, [np.full((9, 9, 3), GREY, np.uint8)]],
        image=np.full((50, 100, 3), GREY, np.uint8),
        gt_boxes=np.array([[10.0, 10, 40, 40], [60, 10, 90, 40]]),
        gt_labels=np.array([0, 1]),
        boxes=np.array([[10.0, 10, 40, 40], [60, 10, 90, 40], [45, 20, 55, 30]]),
        labels=np.array([0, 1, -1]),
        scores=np.array([0.9, 0.4, 0.6]),
    )


def pixels(figure, colour):
    """Where a figure has exactly a colour: (rows, columns)."""
    return np.nonzero((figure == np.array(colour)).all(axis=2))


def test_detections_below_the_threshold_are_left_out(row):
    # 200 wide: truth and detections are the last two columns, 12 pixels apart
    figure = draw_prompts_and_detections([row], score_thr=0.5, size=200)
    detections = figure[:, -212:]
    assert len(pixels(detections, COLOURS[0])[0]) > 0
    assert len(pixels(detections, COLOURS[1])[0]) == 0
    assert len(pixels(detections, OTHER)[0]) > 0
    assert len(pixels(draw_prompts_and_detections([row], 0.3, 200)[:, -212:], COLOURS[1])[0]) > 0


def test_truth_shows_every_box_where_it_is(row):
    figure = draw_prompts_and_detections([row], score_thr=2.0, size=200)
    truth = figure[:, -424:-212]
    rows, columns = pixels(truth, COLOURS[1])
    # the image is shown twice as large: a box 60 wide and high, frame 2 wide
    assert columns.max() - columns.min() == pytest.approx(60, abs=2)
    assert rows.max() - rows.min() == pytest.approx(60, abs=2)
    left = pixels(truth, COLOURS[0])[1].min()
    assert columns.min() - left == pytest.approx(100, abs=1)
    assert len(pixels(truth[58:], OTHER)[0]) == 0  # below the captions


def test_prompts_are_framed_in_the_colour_of_their_class(row):
    figure = draw_prompts_and_detections([row], size=200)
    prompts = figure[:, :-424]
    for label in (0, 1):
        assert len(pixels(prompts, COLOURS[label])[0]) > 0


def test_rows_may_differ_in_size_and_hold_nothing(row):
    empty = replace(
        row,
        class_names=[],
        prompts=[],
        image=np.zeros((100, 30, 3), np.uint8),
        gt_boxes=np.zeros((0, 4)),
        gt_labels=np.zeros(0, int),
        boxes=np.zeros((0, 4)),
        labels=np.zeros(0, int),
        scores=np.zeros(0),
    )
    one = draw_prompts_and_detections([row])
    both = draw_prompts_and_detections([row, empty])
    assert both.shape[1] == one.shape[1]
    np.testing.assert_array_equal(both[: one.shape[0]], one)


def test_input_image_is_not_drawn_on(row):
    draw_prompts_and_detections([row], size=100)
    assert (row.image == GREY).all()


def test_colours_repeat_after_the_last():
    assert colour_of(len(COLOURS)) == COLOURS[0]
    assert colour_of(-1) == OTHER
