"""A run that fails says what to change: real runs through mmdet's scripts, from a command line."""

import errno
import os
import sys
from argparse import Namespace

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from test_engine.test_runner import tiny_cfg

from mmdet_dino_r1.checks.run_failures import explain_failure, explain_user_error
from mmdet_dino_r1.tools.launch import launch


@HOOKS.register_module()
class FailingHook(Hook):
    """Raises before the first step."""

    error: BaseException

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        raise self.error


@pytest.fixture
def command(tiny_shapes, tmp_path, monkeypatch, capsys):
    """Run a stage on the tiny config; returns exit status and what was said last."""
    cfg = tiny_cfg(tiny_shapes, tmp_path / 'run')
    cfg.default_hooks.checkpoint = dict(type='SafeCheckpointHook', interval=1)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=9)
    cfg.log_level = 'ERROR'
    cfg.dump(tmp_path / 'tiny.py')

    def run(stage, *words, hook=False):
        monkeypatch.delenv('LOCAL_RANK', raising=False)
        options = [f'experiment_name=n{len(os.listdir(tmp_path))}{hash(words) % 10**6}']
        if hook:
            options += ['default_hooks.failing.type=FailingHook']
        if '--cfg-options' not in words:
            words = (*words, '--cfg-options')
        monkeypatch.setattr(sys, 'argv', [stage, str(tmp_path / 'tiny.py'), *words, *options])
        status = 0
        try:
            launch(stage)
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr().err.rpartition('mmdet_dino_r1: ')[2]
        return status, said

    run.folder = tmp_path
    return run


def test_the_gpus_memory(command, monkeypatch):
    error = torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB.')
    monkeypatch.setattr(FailingHook, 'error', error, raising=False)
    status, said = command('train', hook=True)
    assert status == 1
    assert said.splitlines() == [
        'the memory of the GPU is not enough. What makes a run need less, with its value now '
        '(--cfg-options KEY=VALUE):',
        '  --amp  (half precision)',
        '  model.backbone.with_cp=not set  (True: activations are computed again instead of kept)',
        '  model.encoder.num_cp=0  (1: activations are computed again instead of kept)',
        '  train_dataloader.batch_size=4  (then optim_wrapper.accumulative_counts (now 1) up, to '
        'keep the total)',
        '  model.prompt_sampler.max_prompts=not set  (classes of a batch)',
        '  model.dn_cfg.group_cfg.num_dn_queries=8',
        '  model.num_queries=10',
        '  train_dataloader.dataset.pipeline  (smaller images; scales up to (64, 64))',
    ]


def test_the_machines_memory_in_a_test(command):
    """Real: queries by the billion."""
    torch.save(dict(state_dict={}), command.folder / 'x.pth')
    size = ['--cfg-options', 'model.num_queries=99000000000']
    status, said = command('test', str(command.folder / 'x.pth'), *size)
    assert status == 1
    lines = said.splitlines()
    assert lines[0].startswith('the memory of the machine is not enough.')
    assert lines[1:4] == [
        '  test_dataloader.batch_size=4',
        '  model.test_cfg.chunk_size=0  (classes at a time; 0: all)',
        '  model.num_queries=99000000000',
    ]


def test_a_full_disk_outside_of_checkpoints(tmp_path):
    args = Namespace(work_dir=str(tmp_path), config='x.py')
    error = OSError(errno.ENOSPC, 'No space left on device')
    said = explain_failure(error, Config(), args, 'train').splitlines()
    assert said[0].startswith(f'no room to write: No space left on device. Free in {tmp_path}: ')
    assert said[1].endswith('then the same command with --resume.')


def test_a_killed_loader():
    cfg = Config(dict(test_dataloader=dict(num_workers=8, batch_size=2)))
    error = RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error.')
    said = explain_failure(error, cfg, Namespace(), 'test').splitlines()
    assert '/dev/shm' in said[0]
    assert said[2:] == ['  test_dataloader.num_workers=8', '  test_dataloader.batch_size=2']


def test_other_errors_keep_their_traceback_alone(command, monkeypatch):
    assert explain_failure(RuntimeError('shape'), Config(), Namespace(), 'train') is None
    assert explain_failure(OSError(errno.EIO, 'I/O'), Config(), Namespace(), 'train') is None
    monkeypatch.setattr(FailingHook, 'error', RuntimeError('of its own'), raising=False)
    with pytest.raises(RuntimeError, match='of its own'):
        command('train', hook=True)


def test_a_mistyped_type_is_placed_and_corrected():
    cfg = Config(dict(custom_hooks=[dict(type='ReferenceModlHook')]))
    with pytest.raises(KeyError) as error:
        HOOKS.build(cfg.custom_hooks[0])
    message = explain_user_error(error.value, cfg)
    assert message.startswith("type='ReferenceModlHook' (custom_hooks.0.type) is not registered")
    assert 'Did you mean ReferenceModelHook' in message


def test_other_key_errors_are_not_explained():
    for error in (KeyError('img'), KeyError()):
        assert explain_user_error(error, Config()) is None


def test_misspelt_keys_and_a_bad_work_dir_stop_it(command):
    status, said = command('train', '--cfg-options', 'model.num_querys=3', 'train_cfg.max_epoch=1')
    assert status == 2
    assert said.splitlines()[1:] == [
        '  model.num_querys     not a key of DINOR1; did you mean num_queries?',
        '  train_cfg.max_epoch  not a key of EpochBasedTrainLoop; did you mean max_epochs?',
    ]
    blocked = command.folder / 'tiny.py' / 'run'
    status, said = command('train', '--work-dir', str(blocked))
    assert status == 2
    assert said.startswith(f'the work directory {blocked} cannot be used: ')


def test_a_checkpoint_of_another_model(command):
    """Trained for real, then tested and resumed with other sizes."""
    run = command.folder / 'run'
    assert command('train') == (0, '')
    smaller = ['--cfg-options', 'model.num_queries=9']
    status, said = command('test', f'{run}/epoch_1.pth', *smaller)
    assert status == 2
    assert said.splitlines() == [
        f'the checkpoint {run}/epoch_1.pth is not of this model: 1 tensors do not fit.',
        '  query_embedding.weight: checkpoint (10, 256), model (9, 256)',
        f'Use the config that it was trained with (beside it: {run}/tiny.py).',
    ]
    status, said = command('train', '--resume', *smaller)
    assert status == 2
    assert said.splitlines()[1:] == [
        '  query_embedding.weight: checkpoint (10, 256), model (9, 256)',
        f'Use the config that it was trained with (beside it: {run}/tiny.py).',
        f'To start anew with the tensors that fit: --cfg-options load_from={run}/epoch_1.pth, '
        'without --resume',
    ]
    # a model without fusion has fewer parts: all of its tensors are there
    status, said = command('test', f'{run}/epoch_1.pth', '--cfg-options', 'model.fusion=False')
    assert status == 2
    assert said.splitlines() == [
        f'the checkpoint {run}/epoch_1.pth is not of this model: trained with model.fusion=True, '
        'the config has model.fusion=False.',
        f'Use the config that it was trained with (beside it: {run}/tiny.py).',
    ]
    # the labels of the denoising queries and the memory of classes are for training only
    memory = 'model.prompt_contrast.type=PromptContrastiveLoss'
    other = ['--cfg-options', 'model.bbox_head.num_classes=50', memory]
    assert command('test', f'{run}/epoch_1.pth', *other)[0] == 0


def test_broken_checkpoints(command):
    run = command.folder / 'run'
    run.mkdir()
    torch.save(dict(meta=dict(epoch=1, iter=3), state_dict={}), run / 'epoch_1.pth')
    whole = (run / 'epoch_1.pth').read_bytes()
    broken = run / 'epoch_2.pth'
    broken.write_bytes(whole[: len(whole) // 2])
    (run / 'last_checkpoint').write_text(str(broken))
    for words in (['--resume'], ['--resume', str(broken)]):
        status, said = command('train', *words)
        assert status == 2
        first, second = said.splitlines()
        assert first.startswith('the checkpoint to continue from (')
        assert f'cannot be read: {broken} is not a checkpoint' in first
        assert second == f'The newest one beside it that is whole: --resume {run}/epoch_1.pth'
    assert command('test', str(broken))[0] == 2
    broken.write_bytes(b'')
    status, said = command('train', '--cfg-options', f'load_from={broken}')
    assert (status, said) == (2, f'load_from is empty: {broken}\n')
    broken.write_text('404: not found')
    status, said = command('test', str(broken))
    assert status == 2 and said.startswith('the checkpoint to test (0.0 MB) cannot be read')
    (run / 'last_checkpoint').write_text('')
    status, said = command('train', '--resume')
    assert status == 2 and said.endswith(f'--resume {run}/epoch_1.pth\n')


def test_weights_alone_are_no_stopped_run(command):
    weights = command.folder / 'weights.pth'
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), weights)
    status, said = command('train', '--resume', str(weights))
    assert status == 2
    assert said.startswith('the checkpoint to continue from holds weights but not where')
    assert f'--cfg-options load_from={weights}, without --resume.' in said
    assert said.endswith('There is no other one of this run beside it: start without --resume.\n')


def test_weights_that_cannot_be_fetched(command, monkeypatch):
    """They are named, with what to do; and are not wanted where a checkpoint replaces them."""
    monkeypatch.setenv('no_proxy', '*')
    init, url = 'model.backbone.init_cfg', 'http://127.0.0.1:9/r18.pth'
    away = ['--cfg-options', f'{init}.type=Pretrained', f'{init}.checkpoint={url}']
    status, said = command('train', *away)
    first, _, last = said.splitlines()
    assert status == 2 and last == f'  --cfg-options {init}.checkpoint=FILE'
    assert first == f'{url} could not be fetched: [Errno 111] Connection refused.'
    status, said = command('train', '--cfg-options', f'load_from={url}')
    assert status == 2 and said.splitlines()[2:] == ['  --cfg-options load_from=FILE']
    broken = command.folder / 'broken.pth'
    broken.write_text('404: not found')
    status, said = command('train', *away[:2], f'{init}.checkpoint={broken}')
    assert status == 2 and said.startswith(f'{broken} is not a checkpoint that can be loaded')
    assert said.endswith(f'  --cfg-options {init}.checkpoint=FILE\n')
    model = MODELS.build(Config.fromfile(command.folder / 'tiny.py').model)
    model.init_weights()  # level_embed is made of memory as it is
    whole = command.folder / 'whole.pth'
    torch.save(model.state_dict(), whole)
    assert command('train', *away, f'load_from={whole}') == (0, '')
    assert command('train', '--resume', *away) == (0, '')
