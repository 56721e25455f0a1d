"""A config by path or by the name of a shipped one; a work directory that can be written to.

Checkpoints are tried in real runs, in test_run_failures.py.
"""

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

from mmdet_dino_r1 import config_path
from mmdet_dino_r1.checks.given_files import (
    explain_checkpoint,
    explain_missing_base,
    explain_work_dir,
    read_config,
)


@pytest.mark.parametrize('folder', ['', 'somewhere/'])
def test_an_unknown_config_names_the_near_ones(folder):
    with pytest.raises(FileNotFoundError) as error:
        read_config(Namespace(config=f'{folder}dino_r1_r18_shape.py'))
    assert '/dino_r1_r18_shape.py does not exist; ' in str(error.value)
    assert 'near names: dino_r1_r18_shapes.py' in str(error.value)


def test_a_bare_name_becomes_the_path(monkeypatch):
    words = ['train.py', 'dino_r1_r18_shapes.py', '--amp']
    monkeypatch.setattr('sys.argv', words)
    for name in ('dino_r1_r18_shapes.py', 'elsewhere/dino_r1_r18_shapes.py', 'unknown.py'):
        args = Namespace(config=name, cfg_options=None, amp=True)
        if name == 'dino_r1_r18_shapes.py':
            assert read_config(args).optim_wrapper.type == 'AmpOptimWrapper'
        else:
            with pytest.raises(FileNotFoundError):
                read_config(args)
        assert (args.config != name) == (name == 'dino_r1_r18_shapes.py')
    assert words == ['train.py', config_path('dino_r1_r18_shapes.py'), '--amp']


def test_a_base_in_a_package_that_is_not_installed():
    error = FileNotFoundError(2, 'No such file', '/x/mmdet_dino_r1/.mim/model-index.yml')
    first, remedy = explain_missing_base('mine.py', error).splitlines()
    assert first.startswith('mine.py: ') and '`pip install -e .`' in remedy
    other = FileNotFoundError(2, 'No such file', '/x/base.py')
    assert len(explain_missing_base('mine.py', other).splitlines()) == 1


def test_a_base_that_is_not_there(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = './none.py'\n")
    with pytest.raises(FileNotFoundError, match='mine.py: .*none.py'):
        read_config(Namespace(config=str(tmp_path / 'mine.py'), cfg_options=None))


class TestWorkDir:
    """The folder that mmdet's script will choose, tried."""

    def explain(self, cfg=(), **args):
        args = Namespace(**(dict(work_dir=None, config='configs/x.py') | args))
        return explain_work_dir(Config(dict(cfg)), args, 'train')

    def test_the_order_of_choice(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert self.explain() is None
        assert self.explain(dict(work_dir='of_config')) is None
        assert self.explain(dict(work_dir='hidden'), work_dir='of_line') is None
        assert sorted(os.listdir()) == ['of_config', 'of_line', 'work_dirs']
        assert os.listdir('work_dirs') == ['x']
        assert os.listdir('of_line') == []

    def test_a_file_in_its_place(self, tmp_path):
        file = tmp_path / 'file'
        file.touch()
        for folder in (file, file / 'below'):
            assert self.explain(work_dir=str(folder)) == (
                f'the work directory {folder} cannot be used: {file} is a file.\n'
                'Remedy: --work-dir DIR, a folder that can be made and written to.'
            )

    @pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs another user in a child process')
    def test_a_folder_of_somebody_else(self):
        """Root may write anywhere, so a child process lays that down first."""
        here = Path('/usr')
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            try:
                if os.getuid() == 0:
                    os.setuid(65534)
                os.write(writer, self.explain(work_dir='/usr/run').encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writer)
        said = os.read(reader, 10_000).decode()
        os.close(reader)
        assert said.startswith(
            f'the work directory {here}/run cannot be used: Permission denied ({here}).'
        )


def test_safetensors_are_weights_and_no_stopped_run(tmp_path):
    weights = tmp_path / 'weights.safetensors'
    save_file(dict(x=torch.zeros(1)), weights)
    cfg, given = Config(dict(load_from=str(weights))), dict(checkpoint=str(weights), work_dir=None)
    assert explain_checkpoint(cfg, Namespace(**given), 'test') is None
    assert explain_checkpoint(cfg, Namespace(**given, resume=None), 'train') is None
    said = explain_checkpoint(cfg, Namespace(**given, resume=str(weights)), 'train')
    assert 'holds weights but not where a run stopped' in said and f'load_from={weights}' in said


@pytest.mark.parametrize('meta', [1, [1], {}, {'epoch': 1}])
def test_a_resume_from_a_file_with_another_meta_is_explained(tmp_path, meta):
    torch.save(dict(meta=meta, state_dict={}), tmp_path / 'x.pth')
    args = Namespace(work_dir=None, resume=str(tmp_path / 'x.pth'))
    assert 'but not where a run stopped' in explain_checkpoint(Config(), args, 'train')
