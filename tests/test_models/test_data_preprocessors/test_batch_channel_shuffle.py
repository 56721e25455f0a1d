"""Shuffled channels: for all images of a step alike, another way in others; in training alone."""

from itertools import permutations

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch
from mmdet.registry import MODELS
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from test_engine.test_runner import tiny_cfg

AUGMENT = dict(type='BatchChannelShuffle', prob=1.0)


@pytest.fixture
def at_step(request):
    """Set the number of the step, as mmengine's RuntimeInfoHook does."""
    hub = MessageHub.get_instance(request.node.name)

    def set_step(step):
        hub.update_info('iter', step)

    return set_step


def order_of(shuffle) -> tuple[int, ...]:
    """Which channel came to each place, the same in both images."""
    images = torch.arange(3.0).reshape(1, 3, 1, 1).expand(2, 3, 4, 5)
    shuffled, samples = shuffle(images, ['untouched'])
    assert samples == ['untouched'] and shuffled.shape == images.shape
    orders = {tuple(pixel.tolist()) for pixel in shuffled.movedim(1, -1).reshape(-1, 3)}
    assert len(orders) == 1
    return tuple(map(int, orders.pop()))


def test_all_images_of_a_step_alike_and_every_order_in_others(at_step):
    shuffle, again = MODELS.build(AUGMENT), MODELS.build(AUGMENT)
    seen = []
    for step in range(200):
        at_step(step)
        torch.manual_seed(step % 3)  # which must not matter: ranks and resumed runs differ in it
        seen.append(order_of(shuffle))
        assert order_of(again) == seen[-1]
    assert set(seen) == set(permutations(range(3)))
    counts = [seen.count(order) for order in set(seen)]
    assert min(counts) > 15  # 33 on average


def test_prob_is_the_share_of_the_batches(at_step):
    half, never = (MODELS.build(dict(AUGMENT, prob=prob)) for prob in (0.5, 0.0))
    changed = 0
    for step in range(400):
        at_step(step)
        changed += order_of(half) != (0, 1, 2)
        assert order_of(never) == (0, 1, 2)
    assert 140 < changed < 195  # 400 * 1/2 * 5/6 = 167


@pytest.mark.parametrize('prob', [-0.1, 1.1, float('nan')])
def test_a_share_out_of_range_is_refused(prob):
    with pytest.raises(ValueError, match='BatchChannelShuffle.prob must be within'):
        MODELS.build(dict(AUGMENT, prob=prob))


def test_the_models_preprocessor_shuffles_in_training_alone(at_step):
    shuffle = MODELS.build(AUGMENT)
    step = 0
    at_step(step)
    while order_of(shuffle) == (0, 1, 2):
        at_step(step := step + 1)
    preprocessor = dict(
        type='DetDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3, batch_augments=[AUGMENT]
    )
    model = build_tiny(data_preprocessor=preprocessor)
    _, samples = make_batch(TWO_IMAGES)
    given = dict(inputs=[torch.randint(256, (3, 64, 64))] * 2, data_samples=samples)
    tested = model.data_preprocessor(given)['inputs']
    trained = model.data_preprocessor(given, training=True)['inputs']
    assert torch.equal(tested[0, 0], given['inputs'][0][2].float())  # BGR to RGB, no more
    assert torch.equal(trained, tested[:, list(order_of(shuffle))])


def test_a_runner_tells_it_the_step(tiny_shapes, tmp_path):
    cfg = tiny_cfg(tiny_shapes, tmp_path / 'shuffled', by_epoch=False)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.model.data_preprocessor.batch_augments = [AUGMENT]
    runner = Runner.from_cfg(cfg)
    seen, (shuffle,) = [], runner.model.data_preprocessor.batch_augments
    shuffle.register_forward_hook(lambda _, given, out: seen.append((given[0], out[0])))
    runner.train()
    assert len(seen) == 6
    for step, (given, out) in enumerate(seen):
        order = torch.Generator().manual_seed(step)
        torch.rand((), generator=order)
        assert torch.equal(out, given[:, torch.randperm(3, generator=order)])
