"""``config_path`` finds shipped configs, in a checkout and in a wheel's layout."""

from pathlib import Path

import pytest
from conftest import CONFIGS
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.fileio import load

from mmdet_dino_r1 import config_path
from mmdet_dino_r1.config import shipped


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
    with pytest.raises(FileNotFoundError, match='they are: .*dino_r1_r18_shapes') as error:
        config_path('zzz')
    assert '_base_' not in str(error.value)
    assert shipped.near_configs('vis_gdino_swin_t_model.py')[0] == 'vis_gdino_swin_t_o365.py'


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


class TestMetafile:
    """What `mim search` reads."""

    root = CONFIGS.parent
    models = load(CONFIGS / 'metafile.yml')['Models']

    def test_the_index_imports_it(self):
        (path,) = load(self.root / 'model-index.yml')['Import']
        assert (self.root / path).samefile(CONFIGS / 'metafile.yml')

    def test_it_lists_the_configs_that_train_a_model_and_no_others(self):
        listed = sorted(model['Config'] for model in self.models)
        trains = [
            f'configs/{path.name}'
            for path in CONFIGS.glob('*.py')
            if 'zeroshot' not in path.stem and 'novel' not in path.stem  # these only test
        ]
        assert listed == sorted(trains)

    def test_names_are_those_of_the_configs(self):
        for model in self.models:
            assert model['Config'] == f'configs/{model["Name"]}.py'
            collection = model['In Collection'].lower().replace('-', '_')
            assert model['Name'].startswith(collection)

    def test_only_what_was_measured_is_entered(self):
        assert not any({'Results', 'Weights'} & model.keys() for model in self.models)

    def test_model_index_parses_it(self):
        modelindex = pytest.importorskip('modelindex.load_model_index')
        index = modelindex.load(str(self.root / 'model-index.yml'))
        assert index.check(silent=True) is not False and not index.check_errors
        assert len(list(index.models)) == len(self.models)
        names = {collection.name for collection in index.collections}
        assert names == {'DINO-R1', 'DINO-R1-plus', 'VIS-GDINO', 'PET-DINO'}

    @pytest.mark.slow
    @pytest.mark.parametrize(
        'name',
        [
            *(f'vis_gdino_swin_{size}_o365' for size in 'tbl'),
            *(f'pet_dino_swin_{size}_finetune' for size in 'tl'),
        ],
    )
    def test_parameters_are_those_of_the_model(self, name):
        (said,) = [m for m in self.models if m['Name'] == name]
        model = Config.fromfile(self.root / said['Config']).model
        del model.backbone['init_cfg']
        built = sum(parameter.numel() for parameter in MODELS.build(model).parameters())
        assert said['Metadata']['Parameters'] == pytest.approx(built / 1e6, abs=0.1)
