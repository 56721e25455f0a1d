import numpy as np
import pytest

from mmdet_dino_r1.lab.training.curves import SUMMED_LOSSES, draw_runs, summed

LOSSES = [dict(step=i, loss_cls=1 / i, loss_bbox=0.5, loss_iou=0.3) for i in (1, 2, 3)]
GRQO = [
    row | dict(grqo_reward_mean=-2.0, grqo_reward_std=0.5, grqo_kl=0.01 * row['step'])
    for row in LOSSES
]
VAL = [{'step': step, 'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.2} for step in (1, 2)]


def test_one_panel_for_each_kind_of_value():
    one = draw_runs({'a': [dict(step=1, loss_cls=1.0)]})
    assert one.dtype == np.uint8 and one.shape[2] == 3
    assert one.std() > 5
    panels = [draw_runs({'a': rows}) for rows in (LOSSES[:2], LOSSES + VAL, GRQO[:1])]
    widths = [panel.shape[1] / one.shape[1] for panel in panels]
    np.testing.assert_allclose(widths, [3, 4, 4], atol=0.01)


def test_values_reach_the_picture():
    other = [row | dict(loss_cls=row['loss_cls'] * 2) for row in LOSSES]
    assert (draw_runs({'a': LOSSES}) != draw_runs({'a': other})).any()


def test_spread_may_be_missing():
    rows = [{k: v for k, v in row.items() if k != 'grqo_reward_std'} for row in GRQO]
    assert draw_runs({'a': rows}).shape == draw_runs({'a': GRQO}).shape


def test_losses_are_summed_over_layers():
    row = dict(step=5, loss=9.0, loss_cls=1.0, enc_loss_cls=2.0, loss_bbox=7.0)
    row |= {'d0.loss_cls': 4.0, 'dn_loss_cls': 8.0, 'd0.dn_loss_iou': 16.0}
    for title, total in (('Classification loss', 7), ('L1 loss', 7), ('Denoising losses', 24)):
        steps, sums = summed([dict(step=1), row], SUMMED_LOSSES[title])
        assert (steps.tolist(), sums.tolist()) == ([5], [total])


def test_several_runs_share_their_panels():
    one = draw_runs({'SFT': LOSSES})
    assert one.dtype == np.uint8 and one.std() > 5
    two = draw_runs({'SFT': LOSSES, 'GRQO': GRQO + VAL})
    # three losses; reward, KL and validation go to a second row with the fourth panel
    np.testing.assert_allclose(two.shape[1] / one.shape[1], 4 / 3, atol=0.01)
    assert two.shape[0] == 2 * one.shape[0]
    with pytest.raises(ValueError, match='neither losses nor validations'):
        draw_runs({'SFT': [dict(step=1, lr=0.1)]})
