"""Mixed precision on a CPU: training by `--amp`, what stays float32, and gradients gone wrong."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, TWO_IMAGES, build_tiny, make_batch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from model_variants import JOINT
from test_engine.test_runner import scalars, tiny_cfg
from torch import nn

from mmdet_dino_r1.engine.amp import MAX_OVERFLOWS, CheckedAmpOptimWrapper, CheckedOptimWrapper
from mmdet_dino_r1.models.losses import GRQOLoss
from mmdet_dino_r1.tools.launch import launch
from mmdet_dino_r1.utils.compat import torch_version
from mmdet_dino_r1.utils.finite import StepDiagnostics

needs_float16 = pytest.mark.skipif(
    torch_version() < (2, 3), reason='float16 and loss scaling on a CPU need PyTorch 2.3'
)
HALVES = [torch.bfloat16, pytest.param(torch.float16, marks=needs_float16)]
HALVES_BY_NAME = ['bfloat16', pytest.param('float16', marks=needs_float16)]


def train(monkeypatch, cfg: Config, *flags: str) -> None:
    """Run mmdet's own train script as the command line does."""
    path = Path(cfg.work_dir).with_suffix('.py')
    cfg.dump(path)
    monkeypatch.setattr(sys, 'argv', ['train.py', str(path), *flags])
    launch('train')


@pytest.mark.slow
@pytest.mark.parametrize('dtype', HALVES_BY_NAME)
def test_a_hundred_steps_by_amp_and_resumed(tiny_shapes, tmp_path, monkeypatch, dtype):
    cfg = tiny_cfg(tiny_shapes, tmp_path / dtype, by_epoch=False)
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=100, val_interval=100)
    cfg.default_hooks.checkpoint.interval = 100
    chosen = [] if dtype == 'bfloat16' else ['optim_wrapper.dtype=float16']  # the former: default
    train(monkeypatch, cfg, '--amp', '--cfg-options', 'log_level=WARNING', *chosen)

    lines = scalars(tmp_path / dtype)
    assert any('coco/bbox_mAP' in line for line in lines), 'validated after the last step'
    steps = [line for line in lines if 'loss' in line]
    assert len(steps) == 100
    losses = torch.tensor([step['loss'] for step in steps])
    assert losses.isfinite().all()
    assert losses[-10:].mean() < 0.6 * losses[:10].mean()
    # p and q are computed alike: before the first update dropout alone tells them apart
    assert 0 <= steps[0]['grqo_kl'] < 0.01
    skipped = [not torch.tensor(step['grad_norm']).isfinite() for step in steps]

    last = torch.load(tmp_path / dtype / 'iter_100.pth', weights_only=False)
    assert all(value.isfinite().all() for value in last['state_dict'].values())
    scaler = last['optimizer']['loss_scaler']
    if dtype == 'bfloat16':
        assert scaler == {} and not any(skipped), 'nothing is scaled'
    else:
        # the scale is halved for each step that is skipped, a few at the start
        assert 1 <= sum(skipped) <= 12
        assert scaler['scale'] == 2.0 ** (16 - sum(skipped))
        assert scaler['_growth_tracker'] == skipped[::-1].index(True), 'steps since the last skip'

    if dtype == 'bfloat16':
        return  # without a scaler a resumed run is like any other
    changes = ['train_cfg.max_iters=102', 'default_hooks.checkpoint.interval=102']
    names = [f'experiment_name={dtype}_resumed', f'visualizer.name={dtype}_resumed']
    flags = ['--amp', '--resume', '--cfg-options', 'log_level=WARNING', 'val_dataloader=None']
    flags += ['val_cfg=None', 'val_evaluator=None']
    train(monkeypatch, cfg, *flags, *changes, *names, *chosen)
    resumed = torch.load(tmp_path / dtype / 'iter_102.pth', weights_only=False)['optimizer']
    assert resumed['loss_scaler']['_growth_tracker'] == scaler['_growth_tracker'] + 2
    assert resumed['loss_scaler']['scale'] == scaler['scale']
    assert resumed['state'][0]['step'] == 102 - sum(skipped), 'the optimiser skipped them, too'


def spied(monkeypatch, owner, name: str) -> set[torch.dtype]:
    """Dtypes of all floating tensors that go into and come out of a function, as it is called."""
    seen, function = set(), getattr(owner, name)

    def collect(value):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            seen.add(value.dtype)
        elif isinstance(value, dict):
            collect(list(value.values()))
        elif isinstance(value, (list, tuple)):
            for item in value:
                collect(item)

    def spy(*args, **kwargs):
        result = function(*args, **kwargs)
        collect([args, kwargs, result])
        return result

    monkeypatch.setattr(owner, name, spy)
    return seen


@pytest.mark.parametrize('dtype', HALVES)
def test_costs_rewards_kl_and_losses_are_float32(monkeypatch, dtype):
    from mmdet_dino_r1.models.layers import deformable_attention
    from mmdet_dino_r1.models.losses import grqo_loss

    sampler = dict(type='InBatchPromptSampler', prefer_other_image=True)
    model = build_tiny(dict(), prompt_sampler=sampler).train()
    model.reference_model.refresh(model)
    head = model.bbox_head
    places = [
        (head.assigner, 'cost'),
        (head.assigner, 'match'),
        (type(head.query_reward), '__call__'),
        (grqo_loss, 'group_advantage'),
        (grqo_loss, 'objectness_kl'),
        (head.loss_grqo, 'forward'),
        (head, '_detection_losses'),
        (model.reference_model, 'objectness_logits'),
    ]
    spies = {name: spied(monkeypatch, owner, name) for owner, name in places}
    sampled = spied(monkeypatch, deformable_attention, 'sample_levels')
    weights = {}
    for name, module in dict(cls=head.cls_branches[-1], linear=model.memory_trans_fc).items():
        module.register_forward_hook(
            lambda module, args, out, name=name: weights.update({name: out.dtype})
        )
    selection = {}
    model.query_selector.register_forward_hook(lambda m, args, out: selection.update(vars(out)))
    with torch.autocast('cpu', dtype):
        losses = model.loss(*make_batch(TWO_IMAGES))
    assert weights == dict(cls=torch.float32, linear=dtype), 'the network itself is in half'
    for name, seen in spies.items():
        assert seen == {torch.float32}, name
    assert torch.float32 in sampled, 'positions'
    assert selection['logits'].dtype == selection['boxes_unact'].dtype == torch.float32
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize('variant', [{}, JOINT], ids=['each box', 'joint'])
def test_policy_and_reference_agree_in_half_precision(dtype, variant):
    """Without dropout, right after the refresh, but for the rounding of different matrix sizes."""
    dropout = dict(fusion_layer_cfg=dict(dropout=0.0, drop_path=0.0))
    model = build_tiny(dict(), encoder=dropout, **variant)
    model.train().reference_model.refresh(model)
    with torch.autocast('cpu', dtype):
        assert float(model.loss(*make_batch(TWO_IMAGES))['grqo_kl']) < 1e-4


@pytest.mark.parametrize('dtype', HALVES)
def test_padded_prompts_in_half_precision(dtype):
    """Three prompts on one image, one on the other, none on the third."""
    from mmdet_dino_r1.structures import VisualPrompts

    model = build_tiny().eval()
    images, samples = make_batch([([], [])] * 3)
    rows = torch.randn(3, 256)
    of_images = [
        (rows, torch.arange(3)),
        (rows[:1], torch.tensor([4])),
        (rows[:0], torch.tensor([]).long()),
    ]
    model.prompts_for = lambda *_: VisualPrompts.padded(*zip(*of_images, strict=True))
    with torch.no_grad(), torch.autocast('cpu', dtype):
        logits, boxes = model(images, samples, mode='tensor')
        found = [sample.pred_instances for sample in model.predict(images, samples)]
    assert logits.isfinite().all() and boxes.isfinite().all()
    assert [set(instances.labels.tolist()) for instances in found] == [{0, 1, 2}, {4}, set()]
    assert all(instances.scores.isfinite().all() for instances in found)


def small(clip_grad: dict | None, **wrapper):
    """Two linear layers of equal input, and their wrapper as our configs build it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    _, samples = make_batch(TWO_IMAGES)
    samples[1].set_metainfo(dict(img_path='photos/9.jpg'))
    model.step_diagnostics = StepDiagnostics(model, samples)
    cfg = Config.fromfile(CONFIGS / '_base_/schedules/adamw_12e.py').optim_wrapper
    cfg = dict(cfg.to_dict(), clip_grad=clip_grad, **wrapper)
    return model, build_optim_wrapper(model, cfg)


def step(model, wrapper, poison: float = 1.0) -> None:
    with wrapper.optim_context(model):
        loss = model(torch.ones(2, 4)).float().square().sum() * 1e-3
    handle = model[1].weight.register_hook(lambda grad: grad * poison)
    wrapper.update_params(loss)
    handle.remove()


@pytest.mark.parametrize(
    'clip_grad', [dict(max_norm=0.1), dict(type='value', clip_value=1.0), None]
)
@pytest.mark.parametrize('wrapper', [dict(), dict(type='AmpOptimWrapper', loss_scale='dynamic')])
@pytest.mark.parametrize('poison', [float('nan'), float('inf')])
def test_bad_gradients_stop_before_the_update(clip_grad, wrapper, poison):
    """Clipping by a norm of NaN makes every gradient NaN: named is the one that began."""
    model, wrapper = small(clip_grad, **wrapper)
    step(model, wrapper)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(FloatingPointError) as error:
        step(model, wrapper, poison)
    assert all(map(torch.equal, before, model.parameters()))
    message = str(error.value)
    assert 'gradients are not, of 1.weight.\n' in message
    assert 'image id 0: 3 boxes of classes (labels) 2, 5\n' in message
    assert 'image id 1 (photos/9.jpg): 1 boxes of classes (labels) 7\n' in message
    assert 'optim_wrapper.optimizer.lr' in message and 'check_data' in message


@needs_float16
@pytest.mark.parametrize('clip_grad', [dict(max_norm=0.1), None])
def test_an_overflow_of_float16_skips_the_step(clip_grad):
    model, wrapper = small(clip_grad, type='AmpOptimWrapper', dtype='float16')
    before = [parameter.clone() for parameter in model.parameters()]
    step(model, wrapper, float('inf'))
    assert all(map(torch.equal, before, model.parameters()))
    assert wrapper.loss_scaler.get_scale() == 2.0**15
    step(model, wrapper)
    assert not torch.equal(before[0], model[0].weight)


@needs_float16
def test_overflows_without_end_stop():
    model, wrapper = small(dict(max_norm=0.1), type='AmpOptimWrapper', dtype='float16')
    for _ in range(2):
        for _ in range(MAX_OVERFLOWS - 1):
            step(model, wrapper, float('inf'))
        step(model, wrapper)  # begins to count anew
    with pytest.raises(FloatingPointError, match=f'in {MAX_OVERFLOWS} steps in a row'):
        for _ in range(MAX_OVERFLOWS):
            step(model, wrapper, float('inf'))


def test_the_constructor_stands_in_for_mmengines_wrappers_alone():
    class Own(OptimWrapper):
        pass

    assert type(small(None)[1]) is CheckedOptimWrapper
    assert type(small(None, type=OptimWrapper)[1]) is CheckedOptimWrapper
    assert type(small(None, type='AmpOptimWrapper')[1]) is CheckedAmpOptimWrapper
    assert type(small(None, type=AmpOptimWrapper)[1]) is CheckedAmpOptimWrapper
    assert type(small(None, type=Own)[1]) is Own


@pytest.mark.parametrize(
    'loss_scale, dtype, scale',
    [
        pytest.param(scale, 'float16', expected, marks=needs_float16)
        for scale, expected in (('dynamic', 2.0**16), (128.0, 128.0), (dict(init_scale=8.0), 8.0))
    ]
    + [('dynamic', 'bfloat16', 1.0), ('dynamic', None, 1.0)],
)
def test_loss_scale(loss_scale, dtype, scale):
    model, wrapper = small(None, type='AmpOptimWrapper', loss_scale=loss_scale, dtype=dtype)
    assert wrapper.loss_scaler.get_scale() == scale
    step(model, wrapper)
    assert wrapper.loss_scaler.get_scale() == scale
    assert wrapper.cast_dtype == getattr(torch, dtype or 'bfloat16')


@pytest.mark.parametrize(
    'wrapper', [dict(dtype='float16'), dict(loss_scale=8.0), dict(loss_scale=dict(init_scale=8.0))]
)
def test_what_the_cpu_of_an_older_pytorch_cannot_do_is_refused(monkeypatch, wrapper):
    monkeypatch.setattr('mmdet_dino_r1.engine.amp.torch_version', lambda: (2, 2))
    with pytest.raises(ValueError, match=r'dtype=float16 and .*loss_scale need PyTorch 2\.3'):
        small(None, type='AmpOptimWrapper', **wrapper)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match=r"optim_wrapper\.dtype .*bfloat16.* got 'half'"):
        small(None, type='AmpOptimWrapper', dtype='half')


@pytest.mark.parametrize('saved', ['float32', *HALVES_BY_NAME])
@pytest.mark.parametrize('resumed', ['float32', *HALVES_BY_NAME])
def test_resume_in_another_precision(saved, resumed):
    def make(dtype):
        amp = dict(type='AmpOptimWrapper', dtype=dtype)
        return small(dict(max_norm=0.1), **(amp if dtype != 'float32' else {}))

    model, wrapper = make(saved)
    step(model, wrapper)
    again, other = make(resumed)
    other.load_state_dict(wrapper.state_dict())
    assert other.optimizer.state_dict()['state'][0]['step'] == 1
    step(again, other)


@pytest.mark.parametrize('amp', [dict(), dict(type='AmpOptimWrapper')])
def test_fused_kernels_are_those_of_the_machine_that_resumes(amp):
    model, wrapper = small(None, **amp)
    step(model, wrapper)
    saved = wrapper.state_dict()
    own = [group['fused'] for group in wrapper.param_groups]
    for group in saved['param_groups']:
        group['fused'] = not group['fused']
    model, wrapper = small(None, **amp)
    wrapper.load_state_dict(saved)
    assert [group['fused'] for group in wrapper.param_groups] == own
    step(model, wrapper)


def test_kl_of_extreme_logits():
    limit = 1e4
    logits = torch.tensor([-limit, -limit, 0.0, limit, limit], requires_grad=True)
    reference = torch.tensor([limit, 0.0, -limit, -limit, limit])
    model = GRQOLoss()
    result = model(torch.zeros(1, 1, 5), torch.tensor([True]), logits[None], reference[None])
    result['loss_grqo_kl'].backward()
    assert result['grqo_kl'].isfinite() and logits.grad.isfinite().all()
    assert logits.grad[0] < 0 and logits.grad[1] < 0, 'p should grow towards q'
