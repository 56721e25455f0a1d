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
    monkeypatch.setattr(torch, '__version__', '2.5.1+cu121')
    with pytest.raises(ImportError, match=r'torch >= 2\.6, found 2\.5\.1\+cu121.*mmcv again'):
        compat.check_environment()
    monkeypatch.setattr(torch, '__version__', '2.10.0a0+git1')
    compat.check_environment()


@pytest.mark.parametrize(
    ('installed', 'message'),
    [
        (
            ['onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine', 'mmcv'],
            'over each other.*pip uninstall -y onedl-mmcv onedl-mmdetection onedl-mmengine mmcv`',
        ),
        (['mmdet', 'mmengine', 'mmcv', 'onedl-mmengine'], 'uninstall -y onedl-mmengine mmcv mmdet'),
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
