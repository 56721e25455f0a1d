"""Mistakes on the command line and in ``type=`` end in one plain line, exit status 2."""

import pytest

from mmdet_dino_r1.tools import launch


@pytest.mark.parametrize('stage', ['train', 'test'])
def test_mmdets_own_script_is_found(stage):
    assert launch.mmdet_script(stage).is_file()


def test_an_uninstalled_mmdet_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(launch.mmdet, '__file__', str(tmp_path / '__init__.py'))
    with pytest.raises(FileNotFoundError, match='installed without its tools'):
        launch.mmdet_script('train')


@pytest.mark.parametrize('stage', ['train', 'test'])
def test_an_unknown_config_ends_it(stage, monkeypatch, capsys):
    more = ['x.pth'] if stage == 'test' else []
    monkeypatch.setattr('sys.argv', [stage, 'somewhere/dino_r1_r18_shape.py', *more])
    with pytest.raises(SystemExit) as end:
        launch.launch(stage)
    assert end.value.code == 2
    assert 'near names: dino_r1_r18_shapes.py' in capsys.readouterr().err


def test_an_option_that_cannot_be_read_ends_it(monkeypatch, capsys):
    for words, said in (
        ('model.num_queries = 3', '--cfg-options takes KEY=VALUE, without blanks around "=".'),
        ('lr=1e-5', 'lr is a variable, which was put into its places as the file was read; set '),
        ('param_scheduler.9.end=3', '--cfg-options param_scheduler.9.end: Index 9 exceeds'),
    ):
        command = f'train dino_r1_r18_shapes.py --cfg-options {words}'.split()
        monkeypatch.setattr('sys.argv', command)
        with pytest.raises(SystemExit) as end:
            launch.launch('train')
        assert end.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(('rank', 'speaks'), [('0', True), ('3', False)])
def test_only_the_first_process_speaks(monkeypatch, capsys, rank, speaks):
    monkeypatch.setenv('RANK', rank)
    with pytest.raises(SystemExit) as end:
        launch.stop('no data', 'pytorch')
    assert end.value.code == 2
    assert bool(capsys.readouterr().err) is speaks
