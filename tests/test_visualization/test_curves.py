import numpy as np
import pytest

from mmdet_dino_r1.visualization import draw_curves

LOSSES = [dict(step=i, loss_cls=1 / i, loss_bbox=0.5, loss_iou=0.3) for i in (1, 2, 3)]
GRQO = [
    row | dict(grqo_reward_mean=-2.0, grqo_reward_std=0.5, grqo_kl=0.01 * row['step'])
    for row in LOSSES
]
VAL = [{'step': step, 'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.2} for step in (1, 2)]


def test_one_panel_for_each_kind_of_value():
    one = draw_curves(LOSSES, [])
    assert one.dtype == np.uint8 and one.shape[2] == 3
    assert one.std() > 5
    panels = [draw_curves(train, val) for train, val in ((LOSSES, VAL), (GRQO, []), (GRQO, VAL))]
    widths = [panel.shape[1] / one.shape[1] for panel in panels]
    np.testing.assert_allclose(widths, [2, 3, 4], atol=0.01)


def test_a_single_validation_is_no_curve():
    assert draw_curves(LOSSES, VAL[:1]).shape == draw_curves(LOSSES, []).shape


def test_values_reach_the_picture():
    other = [row | dict(loss_cls=row['loss_cls'] * 2) for row in LOSSES]
    assert (draw_curves(LOSSES, []) != draw_curves(other, [])).any()


def test_spread_may_be_missing():
    rows = [{k: v for k, v in row.items() if k != 'grqo_reward_std'} for row in GRQO]
    assert draw_curves(rows, []).shape == draw_curves(GRQO, []).shape


def test_nothing_to_draw():
    with pytest.raises(ValueError, match='neither losses nor validations'):
        draw_curves([dict(step=1, lr=0.1)], [])
