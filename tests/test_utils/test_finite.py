"""What stops a step whose losses are not finite, and what the message says."""

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch

from mmdet_dino_r1.utils.finite import check_finite

NAN, INF = float('nan'), float('inf')


def stopped(model, images, samples) -> str:
    """The message that a step ends with; the weights keep their values and get no gradient."""
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(FloatingPointError) as error:
        model.loss(images, samples)
    for old, parameter in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(old, parameter, rtol=0, atol=0, equal_nan=True)
    message = str(error.value)
    assert 'image id 0 (a/0.jpg): 3 boxes of classes (labels) 2, 5\n' in message
    assert 'image id 1 (a/1.jpg): 1 boxes of classes (labels) 7\n' in message
    for remedy in ('optim_wrapper.optimizer.lr', 'without --amp', 'check_data'):
        assert remedy in message
    return message


@pytest.fixture
def step():
    model = build_tiny(dict(kl_weight=0)).train()
    images, samples = make_batch(TWO_IMAGES)
    for index, sample in enumerate(samples):
        sample.set_metainfo(dict(img_path=f'a/{index}.jpg'))
    return model, images, samples


@pytest.mark.parametrize('pixel', [NAN, INF])
def test_a_broken_image_is_named(step, pixel):
    model, images, samples = step
    images[1, 0, 5, 5] = pixel
    message = stopped(model, images, samples)
    assert 'Match costs are not finite for image 1 of the batch' in message.replace('0, 1', '1')
    assert 'Look first: image id 1 (a/1.jpg) has pixels that are not finite.' in message
    assert message.count('Look first') == 1


@pytest.mark.parametrize('edge', [NAN, INF])
def test_a_box_that_is_not_finite_is_named(step, edge):
    model, images, samples = step
    samples[0].gt_instances.bboxes[1, 2] = edge
    message = stopped(model, images, samples)
    assert f'image id 0 (a/0.jpg) has a box [30.0, 20.0, {edge}, 50.0]' in message
    assert message.count('Look first') == 1


def test_an_inverted_box_is_named(step):
    model, images, samples = step
    samples[1].gt_instances.bboxes[0] = torch.tensor([40.0, 8.0, 8.0, 40.0])
    message = stopped(model, images, samples)
    assert 'image id 1 (a/1.jpg) has a box [40.0, 8.0, 8.0, 40.0]' in message


def test_a_broken_parameter_is_named(step):
    model, images, samples = step
    model.memory_trans_fc.weight.data[3, 3] = NAN
    message = stopped(model, images, samples)
    assert 'not finite before this step, first in memory_trans_fc.weight' in message
    assert 'pixels' not in message and 'has a box' not in message


def test_terms_are_named_where_all_else_is_finite(step):
    model, images, samples = step
    model.bbox_head.loss_grqo.reward_weight = INF
    message = stopped(model, images, samples)
    assert message.startswith('Not finite: loss_grqo_reward.\nThe weights were not updated.')
    assert 'images, boxes and parameters are finite' in message


def test_what_is_only_logged_stops_nothing():
    _, samples = make_batch(TWO_IMAGES)
    check_finite(dict(loss_cls=torch.tensor(1.0), grqo_kl=torch.tensor(NAN)), samples)
    many = {f'd{layer}.loss_iou': torch.tensor(INF) for layer in range(12)}
    with pytest.raises(FloatingPointError, match=r'd9\.loss_iou and 2 more\.$'):
        check_finite(many, samples)


def test_a_box_of_no_area_and_images_without_boxes_pass(step):
    model, images, samples = step
    samples[1].gt_instances.bboxes[0, 2:] = samples[1].gt_instances.bboxes[0, :2]
    model.loss(images, samples)
    _, empty = make_batch([([], []), ([], [])])
    model.loss(images, empty)
