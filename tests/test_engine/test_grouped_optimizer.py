"""Merged parameter groups: fewer, and the same updates."""

import pytest
import torch
from conftest import CONFIGS, build_tiny
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmdet_dino_r1.utils.compat import torch_version


def optimizer(model, constructor):
    cfg = Config.fromfile(CONFIGS / 'dino_r1_swin_t_coco.py').optim_wrapper
    assert cfg.constructor == 'GroupedOptimWrapperConstructor', 'what the shipped configs use'
    if torch_version() < (2, 4):
        cfg.optimizer.pop('fused')  # mmengine's constructor hands it on
    return build_optim_wrapper(model, cfg.to_dict() | dict(constructor=constructor))


def options_by_parameter(model, wrapper):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


def test_every_parameter_keeps_its_options_in_few_groups():
    model = build_tiny()
    theirs = optimizer(model, 'DefaultOptimWrapperConstructor')
    ours = optimizer(model, 'GroupedOptimWrapperConstructor')
    options = options_by_parameter(model, ours)
    assert options == options_by_parameter(model, theirs)
    assert len(options) == len(list(model.parameters())) == len(theirs.optimizer.param_groups)
    assert sorted(group['lr'] for group in ours.optimizer.param_groups) == [4e-5, 4e-4]
    assert ours.get_lr()['lr'][0] == theirs.get_lr()['lr'][0] == 4e-4, 'the rate that logs show'


@pytest.mark.parametrize('version', [(2, 3), (2, 4)])
def test_kernels_that_an_older_pytorch_has_for_gpus_alone_are_left_out(monkeypatch, version):
    class Given(Exception):
        pass

    def build(cfg, **_):
        raise Given(cfg.get('fused'))

    module = 'mmdet_dino_r1.engine.grouped_optimizer'
    monkeypatch.setattr(f'{module}.torch_version', lambda: version)
    monkeypatch.setattr('mmengine.optim.optimizer.default_constructor.OPTIMIZERS.build', build)
    cfg = Config.fromfile(CONFIGS / 'dino_r1_swin_t_coco.py').optim_wrapper
    with pytest.raises(Given, match='True' if version == (2, 4) else 'None'):
        build_optim_wrapper(build_tiny(), cfg)


def test_steps_are_the_same():
    """From the same gradients, which clipping scales by their norm, summed in another order."""
    updated = []
    for constructor in ('DefaultOptimWrapperConstructor', 'GroupedOptimWrapperConstructor'):
        torch.manual_seed(0)
        model = build_tiny().train()
        wrapper = optimizer(model, constructor)
        for _ in range(2):
            wrapper.update_params(sum((p * torch.randn(p.shape)).sum() for p in model.parameters()))
        updated.append(model.state_dict())
    for name, value in updated[0].items():
        torch.testing.assert_close(updated[1][name], value, rtol=0, atol=1e-7, msg=name)
