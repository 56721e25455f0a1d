"""What import does: the checks, mmengine's table."""

import importlib
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError

import mmdet
import pytest
import torch
from mmengine.config.utils import MODULE2PACKAGE

from mmdet_dino_r1.utils import compat


def test_mmengine_knows_the_package():
    assert MODULE2PACKAGE['mmdet_dino_r1'] == 'mmdet_dino_r1'


@pytest.mark.parametrize('name', ['mmcv', 'mmdet', 'mmengine', 'torch'])
def test_a_missing_package_is_named_with_the_remedy(monkeypatch, name):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda x: None if x == name else real(x))
    monkeypatch.setattr(compat, 'installed', lambda names: {})
    with pytest.raises(ImportError, match=rf'`{name}`.*mminstall\.txt'):
        compat.check_environment()


def test_mmcv_without_operators_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    with pytest.raises(ImportError, match='--no-build-isolation'):
        compat.check_environment()


def test_an_opencv_without_libgl_is_not_taken_for_mmcv_without_operators(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(ImportError, match='opencv-python-headless'):
        compat.check_environment()


def test_an_old_mmdet_is_refused(monkeypatch):
    monkeypatch.setattr(mmdet, '__version__', '2.28.2')
    with pytest.raises(ImportError, match=r'mmdet >= 3\.3\.0, found 2\.28\.2'):
        compat.check_environment()


def test_an_old_torch_is_refused(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.0.1+cu118')
    with pytest.raises(ImportError, match=r'torch >= 2\.1, found 2\.0\.1\+cu118.*mmcv again'):
        compat.check_environment()
    monkeypatch.setattr(torch, '__version__', '2.10.0a0+git1')
    compat.check_environment()


def test_numpy_2_beside_a_torch_built_for_numpy_1_is_told(monkeypatch):
    def numpy(tensor):
        raise RuntimeError('Numpy is not available')

    monkeypatch.setattr(torch.Tensor, 'numpy', numpy)
    with pytest.raises(ImportError, match=r'built for NumPy 1.*"numpy<2".*not available'):
        compat.check_environment()


@pytest.mark.parametrize(
    ('installed', 'message'),
    [
        (
            ['onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine', 'mmcv'],
            'over each other.*`pip uninstall -y mmcv onedl-mmcv`.* onedl-mmcv==1.0`',
        ),
        (
            ['mmdet', 'mmengine', 'mmcv', 'onedl-mmengine'],
            'uninstall -y onedl-mmengine mmengine`.* mmengine==1.0`',
        ),
        (['onedl-mmdetection', 'mmengine'], 'uninstall -y mmengine`.* onedl-mmengine`'),
        (['mmdet', 'mmengine', 'mmcv-lite'], 'uninstall -y mmcv-lite`.*mminstall'),
    ],
)
def test_packages_installed_over_each_other_are_named(monkeypatch, installed, message):
    def version(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return '1.0'

    monkeypatch.setattr(compat, 'version', version)
    with pytest.raises(ImportError, match=message):
        compat.check_environment()


@pytest.fixture
def only(tmp_path, monkeypatch):
    """A folder that is all of ``sys.path``, for what is not imported yet: mmdet is not."""
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    for name in [name for name in sys.modules if name.split('.')[0] == 'mmdet']:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def distribution(folder, name, number):
    metadata = folder / f'{name.replace("-", "_")}-{number}.dist-info' / 'METADATA'
    metadata.parent.mkdir()
    metadata.write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n')


def test_what_mim_installed_over_onedl_is_told_with_the_commands_that_repair_it(only):
    for name, number in (('mmcv', '2.3.6'), ('mmdetection', '3.5.1'), ('mmengine', '0.10.12')):
        distribution(only, f'onedl-{name}', number)
    distribution(only, 'mmdet', '3.3.0')
    with pytest.raises(ImportError) as refused:
        compat.check_environment()
    assert str(refused.value).endswith(
        'onedl-mmcv, onedl-mmdetection, onedl-mmengine, mmdet. (`mim train mmdet` and `mim run '
        'mmdet` do that beside onedl-mmdetection, if one lets them.) Remedy: `pip uninstall -y '
        'mmdet onedl-mmdetection`, then `MMCV_WITH_OPS=1 pip install --no-deps '
        '--no-build-isolation onedl-mmdetection==3.5.1`.'
    )


def test_files_that_went_with_another_distribution_are_told(only):
    distribution(only, 'onedl-mmdetection', '3.5.1')
    again = (
        r'files of onedl-mmdetection are gone.*{}.*--force-reinstall .* onedl-mmdetection==3\.5\.1`'
    )
    with pytest.raises(ImportError, match=again.format('')):
        compat.check_environment()
    (only / 'mmdet' / 'datasets').mkdir(parents=True)  # what the other one had not
    importlib.invalidate_caches()
    with pytest.raises(ImportError, match=again.format(f'or {only}/mmdet hides them: rename it')):
        compat.check_environment()


def test_a_file_of_the_name_of_a_package_is_named(only):
    (only / 'mmdet.py').touch()
    with pytest.raises(ImportError, match=rf'{only}/mmdet\.py passes for .* `mmdet`: rename it'):
        compat.check_environment()


@pytest.mark.parametrize(
    ('module', 'error', 'message'),
    [
        (
            'mmdet',
            AssertionError('MMCV==2.2.0 is used but incompatible.'),
            r'does not fit.*mminstall\.txt.*MMCV==2\.2\.0 is used',
        ),
        (
            'pycocotools.mask',
            ValueError('numpy.dtype size changed, may indicate binary incompatibility'),
            'another NumPy.*--force-reinstall --no-deps --no-cache-dir pycocotools.*size changed',
        ),
        (
            'mmengine.optim',
            AttributeError("module 'torch.utils._pytree' has no attribute 'register_pytree_node'"),
            r'pip install "transformers<4\.56".*register_pytree_node',
        ),
        ('mmcv._ext', ImportError('undefined symbol: _ZN2at'), 'torch was changed.*_ZN2at'),
    ],
)
def test_what_does_not_fit_is_said_with_the_remedy(monkeypatch, module, error, message):
    real = importlib.import_module

    def import_module(name):
        if name == module:
            raise error
        return real(name)

    monkeypatch.setattr(importlib, 'import_module', import_module)
    with pytest.raises(ImportError, match=message):
        compat.check_environment()
