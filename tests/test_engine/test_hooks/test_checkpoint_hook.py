"""A checkpoint that cannot be written costs neither the one before nor the name of it."""

import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmdet_dino_r1.engine.hooks import checkpoint_hook
from mmdet_dino_r1.engine.hooks.checkpoint_hook import AtomicFileBackend, CheckpointNotSaved

SIZE = 1_000_000  # bytes of the model below


class Model(BaseModel):
    """A million bytes to save."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(SIZE // 4))

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.weight.sum() * inputs.sum())


class Breaks(Hook):
    """Runs a function before the epoch of that number, counted from 0."""

    def __init__(self, epoch, function) -> None:
        self.epoch, self.function = epoch, function

    def before_train_epoch(self, runner) -> None:
        if runner.epoch == self.epoch:
            self.function()


def run(work_dir, epochs=3, hook=None, resume=False, **checkpoint):
    checkpoint = dict(dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=1), **checkpoint)
    runner = Runner(
        Model(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader([dict(inputs=torch.ones(1))] * 2),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=checkpoint),
        custom_hooks=[hook] if hook else None,
        resume=resume,
        experiment_name=f'{work_dir.parts[-2]}_{resume}',
        default_scope='mmdet',
        cfg=Config(dict(resume=resume)),
        log_level='ERROR',
    )
    runner.train()
    return runner


@contextmanager
def files_stay_below(size):
    """Writing more fails for real, with EFBIG in place of a full disk's ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def checkpoints(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))


def test_no_room_for_the_second(tmp_path):
    folder = tmp_path / 'run'
    with files_stay_below(SIZE // 2) as limit, pytest.raises(CheckpointNotSaved) as error:
        run(folder, hook=Breaks(1, limit))
    message = str(error.value).splitlines()
    assert message[0].startswith(f'the checkpoint {folder}/epoch_2.pth was not saved: File too la')
    assert message[0].endswith('(1.0 MB to write).')
    assert message[1].startswith(f'Free in {folder}: ')
    assert message[2] == f'The last checkpoint is whole: {folder}/epoch_1.pth'
    assert message[3].endswith('the same command with --resume')
    assert 'max_keep_ckpts=1' in message[4]
    assert checkpoints(folder) == ['epoch_1.pth']
    assert run(folder, resume=True).epoch == 3
    assert checkpoints(folder) == ['epoch_3.pth']
    assert (folder / 'last_checkpoint').read_text() == f'{folder}/epoch_3.pth'


def test_no_room_for_the_first(tmp_path):
    with files_stay_below(SIZE // 2) as limit, pytest.raises(CheckpointNotSaved) as error:
        run(tmp_path / 'run', hook=Breaks(0, limit))
    assert 'There is no checkpoint before it.' in str(error.value)
    assert checkpoints(tmp_path / 'run') == []


def test_a_name_that_could_not_be_written_is_put_back(tmp_path, monkeypatch):
    """The new checkpoint took the last room: mmengine then empties ``last_checkpoint``."""
    folder = tmp_path / 'run'
    run(folder, epochs=1)

    def put_and_fill(self, obj, filepath):
        (folder / 'last_checkpoint').write_text('')
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patched, pytest.raises(CheckpointNotSaved):
        patched.setattr(AtomicFileBackend, 'put', put_and_fill)
        run(folder, resume=True)
    assert (folder / 'last_checkpoint').read_text() == f'{folder}/epoch_1.pth'


def test_killed_while_writing(tmp_path):
    """SIGKILL in the middle of the second: the first is whole, named, and continued from."""
    folder = tmp_path / 'run'
    if (child := os.fork()) == 0:
        backend = checkpoint_hook.AtomicFileBackend.put

        def die_half_way(self, obj, filepath):
            if filepath.endswith('epoch_2.pth'):
                half = Path(f'{filepath}.{os.getpid()}.tmp')
                half.write_bytes(obj[: len(obj) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            backend(self, obj, filepath)

        try:
            checkpoint_hook.AtomicFileBackend.put = die_half_way
            run(folder)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert checkpoints(folder) == ['epoch_1.pth', f'epoch_2.pth.{child}.tmp']
    assert run(folder, resume=True).epoch == 3
    assert checkpoints(folder) == ['epoch_3.pth']


def test_as_many_as_are_kept(tmp_path):
    run(tmp_path / 'run', epochs=4, max_keep_ckpts=2)
    assert checkpoints(tmp_path / 'run') == ['epoch_3.pth', 'epoch_4.pth']


def test_a_folder_of_its_own(tmp_path):
    run(tmp_path / 'run', epochs=1, out_dir=str(tmp_path / 'elsewhere'))
    assert checkpoints(tmp_path / 'elsewhere' / 'run') == ['epoch_1.pth']
