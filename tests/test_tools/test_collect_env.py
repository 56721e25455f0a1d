import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from mmdet_dino_r1.config.shipped import config_root
from mmdet_dino_r1.tools import collect_env
from mmdet_dino_r1.version import __version__


def lines(text: str) -> dict[str, str]:
    return dict(line.partition(': ')[::2] for line in text.splitlines())


def test_versions_devices_and_whether_all_loads(capsys):
    assert collect_env.main([]) == 0
    told = lines(capsys.readouterr().out)
    assert told['mmdet_dino_r1'] == __version__ and told['import'] == 'accepted'
    assert told['mmcv._ext'].startswith(('GCC', 'clang')) and 'CUDA' in told['mmcv._ext']
    for name in ('numpy', 'pycocotools', 'torch'):
        assert told[name] == version(name)
    assert ('onedl-mmcv' in told) != ('mmcv' in told)  # one family alone
    assert told['CUDA available'] in ('True', 'False')  # mmengine's
    assert 'PyTorch compiling details' in told


def test_the_home_folder_is_not_told(capsys, monkeypatch):
    home = config_root().parent
    monkeypatch.setattr(Path, 'home', lambda: home)
    monkeypatch.setattr(collect_env, 'collect_environment', lambda: dict(a='', b=f'x{home}/y\n\nz'))
    collect_env.main([])
    text = f'shipped configs: ~/{config_root().name}\na: \nb: x{home}/y\nz\n'
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(
    ('broken', 'name', 'reason'),
    [
        ('mmcv._ext', 'mmcv._ext', 'ModuleNotFoundError: '),
        ('mmcv._ext', 'import', 'ImportError: mmdet_dino_r1: mmcv is installed without its comp'),
        ('torch', 'import', 'ImportError: mmdet_dino_r1 needs the Python package `torch`'),
        ('mmengine.utils.dl_utils', 'by mmengine', 'ModuleNotFoundError: '),
    ],
)
def test_what_cannot_be_loaded_is_told(capsys, monkeypatch, broken, name, reason):
    monkeypatch.setitem(sys.modules, broken, None)
    assert collect_env.main([]) == 0
    told = lines(capsys.readouterr().out)
    assert told[name].startswith(reason) and told['numpy'] == version('numpy')


def test_run_by_its_path_where_the_package_refuses_the_environment():
    script = (
        "import runpy, sys; sys.modules['mmcv._ext'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, '-c', script, collect_env.__file__]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = lines(done.stdout)
    assert told['import'].startswith('ImportError: mmdet_dino_r1: mmcv is installed without its')
    assert told['numpy'] == version('numpy')
