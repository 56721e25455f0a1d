"""Mistakes on the command line and in ``type=`` end in one plain line, exit status 2."""

from argparse import Namespace

import pytest
from mmdet.registry import HOOKS
from mmengine.config import Config

from mmdet_dino_r1 import config_path
from mmdet_dino_r1.tools import launch


@pytest.mark.parametrize('stage', ['train', 'test'])
def test_mmdets_own_script_is_found(stage):
    assert launch.mmdet_script(stage).is_file()


def test_an_uninstalled_mmdet_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(launch.mmdet, '__file__', str(tmp_path / '__init__.py'))
    with pytest.raises(FileNotFoundError, match='installed without its tools'):
        launch.mmdet_script('train')


def test_a_mistyped_type_is_placed_and_corrected():
    cfg = Config(dict(custom_hooks=[dict(type='ReferenceModlHook')]))
    with pytest.raises(KeyError) as error:
        HOOKS.build(cfg.custom_hooks[0])
    message = launch.explain_unknown_type(error.value, cfg)
    assert message.startswith("type='ReferenceModlHook' (custom_hooks.0.type) is not registered")
    assert 'Did you mean ReferenceModelHook' in message


def test_other_key_errors_are_not_explained():
    assert launch.explain_unknown_type(KeyError('img'), Config()) is None
    assert launch.explain_unknown_type(KeyError(), Config()) is None


def test_an_unknown_config_names_the_near_ones():
    message = launch.explain_unknown_config('somewhere/dino_r1_r18_shape.py')
    assert 'does not exist. Near names among the shipped ones: dino_r1_r18_shapes.py' in message


def test_a_shipped_config_by_bare_name_is_given_in_full():
    message = launch.explain_unknown_config('dino_r1_r18_shapes.py')
    assert message.endswith(config_path('dino_r1_r18_shapes.py'))


def test_a_bare_name_becomes_the_path(monkeypatch):
    words = ['train.py', 'dino_r1_r18_shapes.py', '--amp']
    monkeypatch.setattr('sys.argv', words)
    for name in ('dino_r1_r18_shapes.py', 'elsewhere/dino_r1_r18_shapes.py', 'unknown.py'):
        args = Namespace(config=name)
        launch.resolve_bare_name(args)
        assert (args.config != name) == (name == 'dino_r1_r18_shapes.py')
    assert words == ['train.py', config_path('dino_r1_r18_shapes.py'), '--amp']


def test_a_base_in_a_package_that_is_not_installed():
    error = FileNotFoundError(2, 'No such file', '/x/mmdet_dino_r1/.mim/model-index.yml')
    first, remedy = launch.explain_missing_base('mine.py', error).splitlines()
    assert first.startswith('mine.py: ') and '`pip install -e .`' in remedy
    other = FileNotFoundError(2, 'No such file', '/x/base.py')
    assert len(launch.explain_missing_base('mine.py', other).splitlines()) == 1


@pytest.mark.parametrize(('rank', 'speaks'), [('0', True), ('3', False)])
def test_only_the_first_process_speaks(monkeypatch, capsys, rank, speaks):
    monkeypatch.setenv('RANK', rank)
    with pytest.raises(SystemExit) as end:
        launch.stop('no data', 'pytorch')
    assert end.value.code == 2
    assert bool(capsys.readouterr().err) is speaks
