"""A run that was killed goes on as if it had not been: the same losses, to the last digit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from test_engine.test_runner import scalars, tiny_cfg

pytestmark = pytest.mark.slow

STEPS = 16  # the set has 12 images: epochs of 3 batches


def cfg_for(shapes, work_dir, by_epoch=True, workers=0, endless=False, seed=0):
    """The tiny config with all that has a state, a checkpoint every other step, no validation."""
    cfg = tiny_cfg(shapes, work_dir, by_epoch=by_epoch)
    cfg.model.prompt_contrast = dict(type='PromptContrastiveLoss')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if by_epoch:
        cfg.train_cfg.max_epochs = -(-STEPS // 3)
    else:
        cfg.train_cfg.max_iters = STEPS
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=-1
    )
    cfg.train_dataloader.num_workers = workers
    if endless:
        cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    cfg.randomness = dict(seed=seed, deterministic=seed is not None)
    return cfg


def losses(work_dir: Path) -> dict[int, float]:
    """Loss by iteration; a resumed run's later lines replace those that were lost."""
    return {line['step']: line['loss'] for line in scalars(work_dir) if 'loss' in line}


@pytest.fixture(scope='module', params=['epochs', 'iterations', 'endless'])
def whole(request, tiny_shapes, tmp_path_factory):
    """An uninterrupted run: its options, folder and losses."""
    options = dict(by_epoch=request.param == 'epochs', endless=request.param == 'endless')
    folder = tmp_path_factory.mktemp(f'whole_{request.param}')
    torch.manual_seed(0)
    Runner.from_cfg(cfg_for(tiny_shapes, folder, **options)).train()
    torch.use_deterministic_algorithms(False)
    return options, folder, losses(folder)


@pytest.mark.parametrize('stopped_at, workers', [(4, 2), (6, 0)])
def test_the_next_ten_losses_are_those_of_the_uninterrupted_run(
    whole, tiny_shapes, tmp_path, stopped_at, workers
):
    """Stopped within the second epoch and at its end; with other numbers of loader workers."""
    options, folder, expected = whole
    assert len(expected) >= STEPS and len(set(expected.values())) >= STEPS
    cfg = cfg_for(tiny_shapes, tmp_path / 'resumed', workers=workers, **options)
    cfg.load_from, cfg.resume = str(folder / f'iter_{stopped_at}.pth'), True
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    torch.use_deterministic_algorithms(False)
    got = losses(tmp_path / 'resumed')
    assert min(got) == stopped_at + 1 and len(got) >= 10
    assert got == {step: expected[step] for step in got}


def test_killed_at_any_moment_and_resumed(tiny_shapes, tmp_path):
    """SIGKILL after a few steps that no checkpoint has; no seed given: the run's own goes on."""
    work_dir = tmp_path / 'killed'
    cfg = cfg_for(tiny_shapes, work_dir, by_epoch=True, seed=None)
    cfg.train_cfg.max_epochs = 5
    cfg.default_hooks.checkpoint.interval = 5
    cfg.dump(str(tmp_path / 'run.py'))
    command = [sys.executable, '-m', 'mmdet_dino_r1.tools.train', 'run.py', '--resume']
    env = dict(os.environ, OMP_NUM_THREADS='1')
    first = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while max(losses(work_dir), default=0) < 8:
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    before = losses(work_dir)
    (saved,) = (work_dir / 'last_checkpoint').read_text().split()
    saved_at = int(Path(saved).stem.removeprefix('iter_'))

    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    after = losses(work_dir)
    assert max(after) == 15
    lost = [step for step in before if step > saved_at]
    assert len(lost) >= 1 and [after[step] for step in lost] == [before[step] for step in lost]
