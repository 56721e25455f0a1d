"""requirements/install_mm.sh, with the real pip and a small package that passes for mmcv."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which('cc') is None, reason='there is no C compiler'),
]

SCRIPT = Path(__file__).resolve().parents[2] / 'requirements/install_mm.sh'
TORCH = """
__version__ = '2.99.0+cpu'
class cuda:
    device_count = int
"""
SETUP = """
import os
from setuptools import Extension, setup
print(os.environ['NINJA_STATUS'].replace('%f', '5').replace('%t', '7') + 'cc _ext.c')
assert os.environ['MMCV_WITH_OPS'] == '1' and int(os.environ['MAX_JOBS']) > 0
operators = Extension('mmcv._ext', ['_ext.c'])
setup(name='mmcv', version='9.0', packages=['mmcv'], ext_modules=[operators])
"""
SOURCES = {
    'setup.py': SETUP,
    'pyproject.toml': '[build-system]\nrequires = ["setuptools"]\n'
    'build-backend = "setuptools.build_meta"\n',
    'PKG-INFO': 'Metadata-Version: 2.1\nName: mmcv\nVersion: 9.0\n',
    'mmcv/__init__.py': '',
    '_ext.c': '#include <Python.h>\n'
    'static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_ext"};\n'
    'PyMODINIT_FUNC PyInit__ext(void) { return PyModule_Create(&module); }\n',
}


def make_environment(folder):
    """An environment with the pip and build tools of this one, and a torch of a few lines."""
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(folder)], check=True)
    site = next(folder.glob('lib/python*/site-packages'))
    tools = ('pip', 'setuptools', '_distutils_hack', 'pkg_resources', 'wheel', 'packaging')
    for path in Path(pytest.importorskip('setuptools').__file__).parents[1].iterdir():
        if path.name in tools or path.name.startswith(('setuptools-', 'wheel-', 'packaging-')):
            (site / path.name).symlink_to(path)
    (site / 'torch.py').write_text(TORCH)
    return folder / 'bin/python'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Runs the script in a new environment; the sources are on the only index."""
    source = tmp_path / 'mmcv-9.0'
    for name, text in SOURCES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    (tmp_path / 'index').mkdir()
    with tarfile.open(tmp_path / 'index/mmcv-9.0.tar.gz', 'w:gz') as archive:
        archive.add(source, 'mmcv-9.0')
    (tmp_path / 'mm.txt').write_text('mmcv==9.0\n')
    for name in [name for name in os.environ if name.startswith('PIP_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path / 'index'))
    monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))

    def run(name, *places):
        python = make_environment(tmp_path / name)
        command = ['sh', str(SCRIPT), str(python), str(tmp_path / 'mm.txt'), *map(str, places)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            subprocess.run([python, '-c', 'import mmcv._ext'], check=True)
        return done.returncode, done.stdout + done.stderr

    return run


def test_what_was_compiled_is_kept_for_the_next_environment(install, tmp_path):
    code, said = install('first', tmp_path / 'nowhere')
    assert code == 0, said
    assert f'looked in: {tmp_path}/nowhere' in said and '== compiled 5/7 files' in said
    (kept,) = (tmp_path / 'cache').rglob('*.whl')
    assert kept.parent.name == f'torch2.99.0+cpu-cp3{sys.version_info[1]}'

    os.remove(tmp_path / 'index/mmcv-9.0.tar.gz')
    other = tmp_path / 'other' / kept.name  # a wheel of that name for another torch does not load
    other.parent.mkdir()
    with zipfile.ZipFile(other, 'w') as file:
        file.writestr('mmcv/__init__.py', '')
        file.writestr('mmcv/_ext.py', 'raise ImportError')
        file.writestr('mmcv-9.0.dist-info/METADATA', SOURCES['PKG-INFO'])
        file.writestr('mmcv-9.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: false\n')
        file.writestr('mmcv-9.0.dist-info/RECORD', '')
    code, said = install('second', other.parent)
    assert code == 0 and '== compil' not in said, said

    shutil.move(kept.parent, tmp_path / 'ready')
    code, said = install('third', other.parent, tmp_path / 'ready')
    assert code == 0 and '== compil' not in said, said
    assert not kept.exists()  # what is ready is not kept again


def test_what_does_not_compile_is_not_kept_and_the_reason_is_shown(install, tmp_path):
    source = tmp_path / 'mmcv-9.0'
    (source / '_ext.c').write_text('#error nvcc is missing')
    with tarfile.open(tmp_path / 'index/mmcv-9.0.tar.gz', 'w:gz') as archive:
        archive.add(source, 'mmcv-9.0')
    code, said = install('first')
    assert code == 1
    assert '#error nvcc is missing' in said and 'mmcv has no operators' in said
    assert not list((tmp_path / 'cache').rglob('*.whl'))
