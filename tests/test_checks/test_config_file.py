"""A config by path or by the name of a shipped one; what is said where there is none."""

from argparse import Namespace

import pytest

from mmdet_dino_r1 import config_path
from mmdet_dino_r1.checks.config_file import explain_missing_base, read_config


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
        read_config(Namespace(config=str(tmp_path / 'mine.py')))
