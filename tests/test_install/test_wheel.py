"""The wheel holds what mim and mmengine look for, whatever lies around in the checkout."""

import email
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').rglob('*.py')}
MODULES = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'mmdet_dino_r1').rglob('*.py')}
MODULES = {name for name in MODULES if '/.mim/' not in name}
WEB_PAGE = {'index.html', 'names.css', 'page.css', 'page.js', 'drawing.js', 'pictures.js'}
WEB_PAGE |= {'prompts.js', 'results.js', 'server.js', 'improve.js'}
WEB_PAGE = {f'mmdet_dino_r1/web/page/{name}' for name in WEB_PAGE}
LEFT_BEHIND = shutil.ignore_patterns(
    '.git', '.venv*', '.mim', 'build', 'dist', '*.egg-info', '__pycache__', 'data', 'work_dirs'
)


def build_wheel(source, folder):
    pip_wheel = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation']
    subprocess.run([*pip_wheel, '-w', str(folder), str(source)], check=True)
    return next(Path(folder).glob('*.whl'))


def contents(wheel):
    """Name and content of each file; what pip records about them is left out."""
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist() if '.dist-info/' not in name}


@pytest.fixture(scope='session')
def checkout(tmp_path_factory):
    """A copy, so that building disturbs neither the checkout nor an editable install of it."""
    copy = tmp_path_factory.mktemp('checkout') / 'repo'
    shutil.copytree(ROOT, copy, ignore=LEFT_BEHIND)
    return copy


@pytest.fixture(scope='session')
def wheel(checkout, tmp_path_factory):
    return build_wheel(checkout, tmp_path_factory.mktemp('wheel'))


def test_the_wheel_holds_all_and_only_what_belongs_there(wheel):
    shipped = {f'mmdet_dino_r1/.mim/configs/{name}' for name in CONFIGS}
    index = {f'mmdet_dino_r1/.mim/{name}' for name in ('model-index.yml', 'configs/metafile.yml')}
    typed = {'mmdet_dino_r1/py.typed'}
    assert set(contents(wheel)) == MODULES | WEB_PAGE | shipped | index | typed
    assert {'mmdet_dino_r1/tools/train.py', 'mmdet_dino_r1/tools/test.py'} <= MODULES


def metadata(wheel, field):
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith('METADATA'))
        return email.message_from_bytes(file.read(name)).get_all(field)


def test_installing_into_a_full_environment_changes_nothing_there(wheel, tmp_path):
    """pip would take what it misses or has too old from its indexes; without any it fails."""
    report = tmp_path / 'report.json'
    pip_install = [sys.executable, '-m', 'pip', 'install', '-q', '--dry-run', '--no-index']
    subprocess.run([*pip_install, '--report', str(report), str(wheel)], check=True)
    found = json.loads(report.read_text())['install']
    assert {entry['metadata']['name'] for entry in found} <= {'mmdet_dino_r1'}


def test_nothing_required_brings_mm_packages_torch_or_opencv(wheel):
    """Each comes in several distributions of the same modules, which lie over one another."""
    seen, waiting = set(), metadata(wheel, 'Requires-Dist')
    while waiting:
        requirement = Requirement(waiting.pop())
        wanted = requirement.marker is None or requirement.marker.evaluate({'extra': ''})
        if wanted and requirement.name not in seen:
            seen.add(requirement.name)
            waiting += importlib.metadata.requires(requirement.name) or []
    assert 'pycocotools' in seen
    assert not [name for name in seen if name.startswith(('opencv', 'torch', 'mm', 'onedl'))]


def test_the_python_versions_agree_wherever_they_stand(wheel):
    prefix = 'Programming Language :: Python :: 3.'
    minors = [
        int(line.removeprefix(prefix))
        for line in metadata(wheel, 'Classifier')
        if line.startswith(prefix)
    ]
    assert minors == [10, 11, 12]
    assert set(metadata(wheel, 'Requires-Python')[0].split(',')) == {'>=3.10', '<3.13'}
    assert '(3, 10) <= sys.version_info < (3, 13)' in (ROOT / 'Makefile').read_text()
    assert 'Python 3.10–3.12.' in (ROOT / 'README.md').read_text(encoding='utf-8')
    assert 'target-version = "py310"' in (ROOT / 'pyproject.toml').read_text()  # lint holds syntax


def test_what_an_earlier_install_left_does_not_get_in(wheel, checkout, tmp_path):
    stale = tmp_path / 'repo'
    shutil.copytree(checkout, stale)
    for folder in ('mmdet_dino_r1/.mim/configs/configs', 'build/lib/mmdet_dino_r1/.mim/configs'):
        (stale / folder).mkdir(parents=True, exist_ok=True)
        (stale / folder / 'ghost.py').touch()
    assert contents(build_wheel(stale, tmp_path / 'out')) == contents(wheel)


@pytest.mark.slow
def test_an_sdist_builds_into_the_same_wheel_and_that_runs_elsewhere(wheel, checkout, tmp_path):
    build = 'import sys, setuptools.build_meta as b; print(b.build_sdist(sys.argv[1]))'
    subprocess.run([sys.executable, '-c', build, str(tmp_path)], cwd=checkout, check=True)
    sdist = next(tmp_path.glob('*.tar.gz'))
    built = build_wheel(sdist, tmp_path / 'out')
    assert contents(built) == contents(wheel)

    installed, elsewhere = tmp_path / 'installed', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    pip_install = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index']
    subprocess.run([*pip_install, '--target', str(installed), str(built)], check=True)
    numbers = ['--image-size', '64', '--num-base-classes', '2', '--num-novel-classes', '1']
    numbers += [f'--{name}-images=2' for name in ('train', 'val', 'val-novel', 'prompts-novel')]
    numbers += ['--workers', '1']
    command = [sys.executable, '-m', 'mmdet_dino_r1.tools.generate_shapes', 'shapes', *numbers]
    subprocess.run(
        command, cwd=elsewhere, env=os.environ | {'PYTHONPATH': str(installed)}, check=True
    )
    assert (elsewhere / 'shapes' / 'annotations' / 'train.json').is_file()


def test_an_editable_install_leads_every_tool_to_the_checkout(checkout, tmp_path):
    repo = tmp_path / 'repo'
    shutil.copytree(checkout, repo)
    build = 'import sys, setuptools.build_meta as b; print(b.build_editable(sys.argv[1]))'
    subprocess.run([sys.executable, '-c', build, str(tmp_path)], cwd=repo, check=True)
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as file:
        top_level = next(name for name in file.namelist() if name.endswith('top_level.txt'))
        # openmim and mmengine 0.10.7 join this to site-packages and look there
        assert file.read(top_level).decode() == f'{repo}/mmdet_dino_r1\n'
    assert (repo / 'mmdet_dino_r1/.mim/configs/configs').resolve() == repo / 'configs'
    assert (repo / 'mmdet_dino_r1/.mim/model-index.yml').resolve() == repo / 'model-index.yml'
    assert (repo / 'mmdet_dino_r1/.mim/configs/metafile.yml').resolve() == (
        repo / 'configs/metafile.yml'
    )
    assert (repo / '.mim/tools').resolve() == repo / 'mmdet_dino_r1/tools'


@pytest.fixture
def above(tmp_path):
    """A folder with one in it that is named like the package and holds nothing of it."""
    (tmp_path / 'above' / 'mmdet_dino_r1' / 'docs').mkdir(parents=True)
    return tmp_path / 'above'


def python_in(folder, python, script):
    """Errors and output of a script run in a folder, away from the checkout."""
    clean = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    command = [python, '-c', script]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)


@pytest.mark.slow
def test_a_folder_of_its_name_does_not_hide_an_editable_install(checkout, above, tmp_path):
    repo, venv = tmp_path / 'repo', tmp_path / 'venv'
    shutil.copytree(checkout, repo)
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(venv)], check=True)
    (site,) = venv.glob('lib/python*/site-packages')
    Path(site, 'around.pth').write_text('\n'.join(path for path in sys.path if 'site-p' in path))
    install = ['-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--no-build-isolation']
    python = str(venv / 'bin' / 'python')
    subprocess.run([python, *install, '--ignore-installed', '-e', str(repo)], check=True)
    done = python_in(
        above,
        python,
        'from mmdet_dino_r1.apis import DINOR1Inferencer\n'
        'from mmengine.runner.checkpoint import CheckpointLoader\n'
        'import mmdet_dino_r1 as m\n'
        'print(m.__file__, CheckpointLoader._schemes[""].__module__)',
    )
    assert done.stdout.split()[-2:] == [
        str(repo / 'mmdet_dino_r1' / '__init__.py'),
        'mmdet_dino_r1.utils.safe_files',
    ], done.stderr


@pytest.mark.parametrize(
    'part',
    [
        *('tools.train', 'utils.safe_files'),
        *(pytest.param(part, marks=pytest.mark.slow) for part in ('apis', 'engine', 'models')),
    ],
)
def test_nothing_loads_checkpoints_where_a_folder_passes_for_the_package(above, part):
    script = (
        'import sys; real, sys.path = sys.path, [""]\n'
        'import mmdet_dino_r1; sys.path = real\n'
        # what the finder of an editable install amounts to
        f'mmdet_dino_r1.__path__ = [{str(ROOT / "mmdet_dino_r1")!r}]\n'
        f'import mmdet_dino_r1.{part}'
    )
    done = python_in(above, sys.executable, script)
    assert 'passes for the package `mmdet_dino_r1`' in done.stderr, done
    assert done.returncode == 1 and 'pip install -e .' in done.stderr


def test_building_touches_only_what_git_ignores(wheel, checkout):
    new = {path.name for path in checkout.iterdir()} - {path.name for path in ROOT.iterdir()}
    assert new <= {'build', 'mmdet_dino_r1.egg-info'}
    assert not (checkout / 'mmdet_dino_r1' / '.mim').exists()
