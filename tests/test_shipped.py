"""``config_path`` finds shipped configs, in a checkout and in a wheel's layout."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_dino_r1 import config_path, shipped


@pytest.mark.parametrize(
    'name',
    ['dino_r1_r18_shapes.py', 'dino_r1_r18_shapes', 'configs/dino_r1_r18_shapes.py'],
)
def test_the_names_a_user_may_write(name):
    path = Path(config_path(name))
    assert path.is_absolute() and path.is_file()
    assert path.name == 'dino_r1_r18_shapes.py'


def test_base_parts_by_relative_path():
    name = next(name for name in shipped.config_names() if name.startswith('_base_/'))
    assert config_path(name).endswith(f'configs/{name}')


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(FileNotFoundError, match=r'near names: .*dino_r1_r18_shapes\.py'):
        config_path('dino_r1_r18_shape.py')
    with pytest.raises(FileNotFoundError, match='they are: .*dino_r1_r18_shapes'):
        config_path('zzz')


def test_a_wheel_layout_is_asked_first(tmp_path, monkeypatch):
    package = tmp_path / 'mmdet_dino_r1'
    own = package / '.mim' / 'configs' / 'configs'
    for folder in (own, tmp_path / 'configs'):  # the second: somebody else's, beside the package
        folder.mkdir(parents=True)
        (folder / 'x.py').touch()
    monkeypatch.setattr(shipped, '_PACKAGE', package)
    assert config_path('x.py') == str(own / 'x.py')


def test_no_configs_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, '_PACKAGE', tmp_path / 'mmdet_dino_r1')
    with pytest.raises(FileNotFoundError, match='install it with pip'):
        config_path('x.py')


def test_base_by_expression(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text(
        "_base_ = __import__('mmdet_dino_r1').config_path('dino_r1_r18_shapes.py')\n"
        'train_cfg = dict(max_iters=2)\n'
    )
    cfg = Config.fromfile(config)
    assert cfg.train_cfg.max_iters == 2
    assert cfg.model.type == 'DINOR1'
