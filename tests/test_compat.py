"""What import does: the checks, the safe list, mmengine's table."""

import importlib.util
import io
import sys

import mmdet
import numpy as np
import pytest
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import HistoryBuffer

from mmdet_dino_r1 import compat


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


def load_safely(content):
    compat.allow_resume()  # onedl-mmengine takes its own listing back after each load
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Calls:
    """Pickles to a call of any function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


safe_loading = pytest.mark.skipif(
    torch.__version__ < '2.6', reason='torch < 2.6 does not load safely by default'
)


@safe_loading
def test_a_log_history_survives_safe_loading():
    history = HistoryBuffer()
    for value in (3.0, 1.0, 2.0):
        history.update(value)
    loaded = load_safely({'loss': history, 'mean': np.float64(2.5), 'count': np.int64(7)})
    assert loaded['loss'].data[0].tolist() == [3.0, 1.0, 2.0]
    assert loaded['loss'].min() == 1.0
    assert (loaded['mean'], loaded['count']) == (2.5, 7)


@safe_loading
@pytest.mark.parametrize(
    'call',
    [
        Calls(eval, '1 + 1'),
        Calls(getattr, HistoryBuffer, 'register_statistics'),
        Calls(getattr, np.ndarray, 'tofile'),
    ],
)
def test_safe_loading_stays_on(call):
    with pytest.raises(Exception, match='(?i)not a log statistic|weights.only|unsupported'):
        load_safely(call)
