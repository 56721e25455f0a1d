"""What stands around the model, on the pretended device: banks, inferencer, query view and hooks.

The runner cannot be put there, so hooks get what they read of one. Images are preprocessed on the
CPU and moved, uncounted.
"""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CONFIGS, TWO_IMAGES, build_tiny, make_batch, tiny_model_cfg
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import EpochBasedTrainLoop
from pretended_device import host_of, to_device

from mmdet_dino_r1.apis import DINOR1Inferencer, Reference
from mmdet_dino_r1.config.loading import image_pipeline
from mmdet_dino_r1.engine.bank_builder import encode_prompt_bank, weights_fingerprint
from mmdet_dino_r1.engine.hooks import GradientShareHook, ReferenceModelHook, ResumeHook
from mmdet_dino_r1.lab.query_view.collect import view_dataset
from mmdet_dino_r1.structures import PromptBank


def moved(model):
    """The model on the device; its data preprocessor works on the CPU."""
    preprocess = deepcopy(model.data_preprocessor)
    there = to_device(deepcopy(model))
    there.data_preprocessor.forward = lambda *args: to_device(preprocess(*args))
    return there


@pytest.fixture
def config(tiny_shapes):
    """The small model made tiny, on the tiny set."""
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    cfg.model = tiny_model_cfg({})
    cfg.test_dataloader.dataset.data_root = f'{tiny_shapes}/'
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'Resize':
            step.scale = (64, 64)
    return cfg


def test_a_bank_is_built(device, assert_equal, config, tiny_shapes):
    exemplars = DATASETS.build(
        dict(
            type='ExemplarDataset',
            data_root=str(tiny_shapes),
            ann_file=config.train_dataloader.dataset.ann_file,
            data_prefix=config.train_dataloader.dataset.data_prefix,
            shots=2,
            pipeline=image_pipeline(config),
        )
    )
    model = build_tiny()
    expected = encode_prompt_bank(model, exemplars, batch_size=4)
    there = moved(model)
    device.clear()
    bank = encode_prompt_bank(there, exemplars, batch_size=4)
    batches = -(-len(exemplars) // 4)
    fingerprint = len(model.state_dict())  # a wait for each tensor, once
    # the labels before the device has work, and the embeddings
    device.check(waits=2 * batches + fingerprint, copies=3 + 2 * batches)
    assert_equal(bank.embeddings, expected.embeddings)
    assert bank.provenance == expected.provenance


def test_the_inferencer_detects(device, assert_equal, config, tmp_path):
    torch.save(dict(state_dict=build_tiny({}).state_dict()), tmp_path / 'tiny.pth')
    here = DINOR1Inferencer(config, tmp_path / 'tiny.pth', 'cpu')
    there = DINOR1Inferencer(config, tmp_path / 'tiny.pth', 'cpu')
    there.model = moved(there.model)
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(4)]
    box, other = [4, 4, 30, 34], [20, 10, 38, 44]
    references = [
        Reference(images[0], [box, other], ['cat', 'dog']),
        Reference(images[1], [box], 'cat'),
    ]
    own = dict(boxes=[[box], [box, other]], classes=[['a'], ['b', 'a']], distractors=['b'])
    found = []
    for inferencer in (here, there):
        inferencer.set_prompts(references)
        device.clear()
        found.append([inferencer(images, batch_size=4, score_thr=0)])
        device.check(waits=1, copies=8)  # what was found is fetched once
        device.clear()
        found[-1].append(inferencer(images[:2], batch_size=2, score_thr=0, **own))
        device.check(waits=3, copies=8)  # and what distractors leave is counted
    for expected, results in zip(*found, strict=True):
        for one, reference in zip(results['predictions'], expected['predictions'], strict=True):
            assert one['labels'] == reference['labels']
            for name in ('scores', 'bboxes'):
                assert_equal(torch.tensor(one[name]), reference[name], rtol=1e-4, atol=1e-4)


def test_queries_are_viewed(device, assert_equal, config):
    dataset = DATASETS.build(config.test_dataloader.dataset)
    names = dataset.metainfo['classes']
    model = build_tiny({})
    model.set_prompt_bank(PromptBank(tuple(names), torch.randn(len(names), 256)))
    expected = view_dataset(model, dataset, num_images=2)
    there = moved(model)
    device.clear()
    views = view_dataset(there, dataset, num_images=2)
    device.check(waits=2, copies=12)  # once an image
    for view, reference in zip(views, expected, strict=True):
        assert_equal(torch.tensor(view.boxes), reference.boxes)
        assert_equal(torch.tensor(view.scores), reference.scores)
        assert_equal(torch.tensor(view.truth.rewards), reference.truth.rewards, rtol=1e-4)
        assert np.array_equal(view.truth.matches, reference.truth.matches)


def test_the_gradients_share_is_measured(device):
    model = build_tiny(dict(reward_weight=1.0)).train()
    images, samples = make_batch(TWO_IMAGES)
    shares = []
    for trained in (model, to_device(deepcopy(model))):
        trained.reference_model.refresh(trained)
        trained.data_preprocessor.forward = lambda data, training: data
        hub = MessageHub(f'share {len(shares)}')
        runner = SimpleNamespace(model=trained, iter=0, message_hub=hub)
        move = deepcopy if trained is model else to_device
        torch.manual_seed(3)
        device.clear()
        batch = dict(inputs=move(images), data_samples=move(samples))
        GradientShareHook().before_train_iter(runner, 0, batch)
        device.check(waits=3 + 2, copies=12)  # those of a step, and the two figures
        names = ('grqo_grad_share', 'grqo_grad_cosine')
        shares.append([hub.get_scalar(f'train/{name}').current() for name in names])
    assert shares[1] == pytest.approx(shares[0], rel=1e-4)


def train_step(model, optimiser, images, samples):
    """One step; the losses."""
    losses = model.loss(images, samples)
    optimiser.zero_grad()
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    optimiser.step()
    return {name: value.detach() for name, value in losses.items()}


def test_an_averaged_model_follows_and_detects(device, assert_equal):
    """mmengine's EMA: the average is made on the device, and predicts there."""
    model = build_tiny({}).train()
    images, samples = make_batch(TWO_IMAGES)
    averages = []
    for trained, move in ((model, deepcopy), (to_device(deepcopy(model)), to_device)):
        average = ExponentialMovingAverage(trained, momentum=0.3)
        trained.reference_model.refresh(trained)
        optimiser = torch.optim.SGD(trained.parameters(), lr=1e-3)
        torch.manual_seed(3)
        for _ in range(2):
            device.clear()
            train_step(trained, optimiser, move(images), move(samples))
            average.update_parameters(trained)
            device.check(waits=3, copies=12)
        averages.append(average.module)
    there = averages[1]
    assert not there.reference_model.is_ready
    # one step was taken between the updates
    parameters = [dict(average.named_parameters()) for average in averages]
    assert not torch.equal(parameters[0]['level_embed'], model.level_embed)
    assert_equal(parameters[1], parameters[0], atol=1e-6)

    bank = PromptBank(tuple('abc'), torch.randn(3, 256))
    scores = []
    for average, move in zip(averages, (deepcopy, to_device), strict=True):
        average.eval().set_prompt_bank(bank)
        with torch.no_grad():
            (first, _) = average.predict(move(images), move(samples))
        scores.append(first.pred_instances.scores)
    assert_equal(scores[1], scores[0])


def on_cpu(state: dict) -> dict:
    """As ``torch.load`` gives what was saved, with ``map_location='cpu'``."""
    return {name: host_of(tensor).clone() for name, tensor in state.items()}


def test_a_resumed_run_goes_on_with_its_snapshot(device, assert_equal):
    """Within an epoch: the reference model is that of its start, not the weights in force."""
    images, samples = make_batch(TWO_IMAGES)
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)

    def runner_of(model, iteration):
        return SimpleNamespace(
            model=model,
            train_loop=loop,
            train_dataloader=range(4),
            iter=iteration,
            epoch=0,
            seed=7,
        )

    def steps(model, hook, first, last):
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
        runner, resume = runner_of(model, first), ResumeHook()
        hook.before_train(runner)
        for runner.iter in range(first, last):
            resume.before_train_iter(runner, runner.iter)
            hook.before_train_iter(runner, runner.iter)
            losses = train_step(model, optimiser, to_device(images), to_device(samples))
        return losses, runner

    whole = to_device(build_tiny({}).train())
    hook = ReferenceModelHook()
    _, runner = steps(whole, hook, 0, 2)
    checkpoint = dict(meta=dict(iter=2, epoch=0))
    hook.before_save_checkpoint(runner, checkpoint)
    weights, snapshot = on_cpu(whole.state_dict()), on_cpu(checkpoint['reference_model'])
    assert not torch.equal(weights['level_embed'], snapshot['level_embed'])
    expected, _ = steps(whole, hook, 2, 3)

    resumed = build_tiny({}).train()
    resumed.load_state_dict(weights)
    resumed, hook = to_device(resumed), ReferenceModelHook()
    hook.after_load_checkpoint(runner, dict(reference_model=snapshot))
    found, _ = steps(resumed, hook, 2, 3)
    assert host_of(expected['grqo_kl']) > 0
    assert_equal(found, {name: host_of(value) for name, value in expected.items()}, rtol=0, atol=0)
    assert weights_fingerprint(resumed) == weights_fingerprint(whole)
