"""The installed wheel under mim, outside the checkout: real commands, each in its own process.

Starting Python with mmdet takes seconds and every ``mim`` command starts it twice or more, so one
small project is trained, tested and continued once, and the tests look at what came of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mmcv
import mmdet
import pytest

pytest.importorskip('mim', reason='openmim is not installed (`make setup` installs it)')
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

# Three lines changed: those that make it short.
PROJECT = """\
_base_ = 'mmdet_dino_r1::configs/dino_r1_r18_shapes.py'
train_cfg = dict(max_iters=2, val_interval=2)
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval=1), prompt_bank=dict(bank=dict(shots=2)))
"""
ELSEWHERE = """\
_base_ = __import__('mmdet_dino_r1').config_path('dino_r1_r18_shapes.py')
train_cfg = dict(max_iters=3, val_interval=1000)
train_dataloader = dict(batch_size=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""


@pytest.fixture(scope='module')
def python(tmp_path_factory) -> str:
    """A fresh environment with the wheel in it; all else is taken from the running one."""
    folder = tmp_path_factory.mktemp('environment')
    pip = [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check']
    wheel = ['wheel', '--no-deps', '--no-build-isolation', '-w', str(folder), str(ROOT)]
    subprocess.run([*pip, *wheel], check=True)
    subprocess.run(
        [sys.executable, '-m', 'venv', '--without-pip', str(folder / 'venv')], check=True
    )
    python = folder / 'venv' / 'bin' / 'python'
    site = subprocess.run(
        [str(python), '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # A .pth file's lines are added after the environment's own packages, and .pth files found
    # through them (an editable install of the checkout) are not read.
    around = {Path(module.__file__).parents[1] for module in (mmcv, mmdet, pytest)}
    Path(site, 'around.pth').write_text('\n'.join(map(str, around)))
    target = ['install', '--no-deps', '--target', site, str(next(folder.glob('*.whl')))]
    subprocess.run([*pip, *target], check=True)
    return str(python)


@pytest.fixture(scope='module')
def project(tmp_path_factory, tiny_shapes) -> Path:
    """A user's folder: two configs, and the data where the shipped configs expect them."""
    folder = tmp_path_factory.mktemp('project')
    (folder / 'project.py').write_text(PROJECT)
    (folder / 'elsewhere.py').write_text(ELSEWHERE)
    (folder / 'data').mkdir()
    (folder / 'data' / 'shapes').symlink_to(tiny_shapes)
    return folder


def run(folder: Path, *command: str) -> tuple[int, str]:
    """Exit status and all output of a command run in ``folder``, away from the checkout."""
    clean = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    done = subprocess.run(
        command,
        cwd=folder,
        env=clean | {'OMP_NUM_THREADS': '1'},  # two spin on busy cores, three times slower
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope='module')
def trained(python, project) -> str:
    """Output of ``mim train`` on the project's config."""
    status, output = run(
        project, python, '-m', 'mim', 'train', 'mmdet_dino_r1', 'project.py', '--work-dir', 'work'
    )
    assert status == 0, output
    return output


def test_the_installed_package_is_the_one_that_runs(python, project):
    where = 'import mmdet_dino_r1 as m; print(m.__file__, m.config_path("dino_r1_r18_shapes.py"))'
    status, output = run(project, python, '-c', where)
    assert status == 0, output
    module, config = output.split()[-2:]
    assert not Path(module).is_relative_to(ROOT)
    assert Path(config).parent == Path(module).parent / '.mim' / 'configs' / 'configs'


def test_mim_search_lists_the_models(python, project):
    search = [python, '-m', 'mim', 'search', 'mmdet_dino_r1']
    status, output = run(project, *search, '--model', 'dino-r1', '--field', 'parameters')
    assert status == 0, output
    assert 'dino_r1_swin_t_coco' in output and 'vis_gdino' not in output
    status, output = run(project, *search, '--dataset', 'coco', '--valid-config')
    assert status == 0, output
    assert output.count('swin') == 9, output  # three families, three sizes


def test_mim_run_checks_the_data(python, project):
    check = [python, '-m', 'mim', 'run', 'mmdet_dino_r1', 'check_data', 'project.py']
    status, output = run(project, *check)
    assert status == 0, output
    assert 'no problem found' in output
    status, output = run(
        project, *check, '--cfg-options', 'train_dataloader.dataset.type=CocoDataset'
    )
    assert status != 0
    assert "Set type='CocoJsonDataset'" in output, output


def test_missing_coco_is_said_at_once_before_anything_is_built(python, tmp_path):
    status, output = run(
        tmp_path, python, '-m', 'mim', 'train', 'mmdet_dino_r1', 'dino_r1_swin_t_coco.py'
    )
    assert status != 0
    assert 'nothing was started' in output, output
    assert f'{tmp_path}/data/coco/annotations/instances_train2017.json' in output
    assert f'{tmp_path}/data/coco/train2017' in output
    assert f'{tmp_path}/data/coco/annotations/instances_val2017.json' in output
    assert 'mmengine - INFO' not in output  # no runner, so no model
    assert not (tmp_path / 'work_dirs').exists()


def test_a_project_inherits_a_shipped_config_and_trains(trained, project):
    assert 'bbox_mAP' in trained  # its validation, with prompts
    assert (project / 'work' / 'iter_2.pth').is_file()
    assert 'Failed to search registry' not in trained


def test_mim_test_writes_predictions_and_pictures(python, project, trained):
    status, output = run(
        project,
        *(python, '-m', 'mim', 'test', 'mmdet_dino_r1', 'project.py'),
        *('--checkpoint', 'work/iter_2.pth', '--work-dir', 'tested'),
        *('--out', 'out.pkl', '--show-dir', 'shown'),
    )
    assert status == 0, output
    assert (project / 'out.pkl').is_file()
    assert len(list((project / 'tested').rglob('shown/**/*.png'))) == 4


def test_mmdets_own_script_continues_where_mim_stopped(python, project, trained):
    script = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    status, output = run(
        project, python, str(script), 'elsewhere.py', '--work-dir', 'work', '--resume'
    )
    assert status == 0, output
    assert 'resumed epoch: 0, iter: 2' in output
    assert 'Iter(train) [3/3]' in output and 'Iter(train) [2/3]' not in output
    assert (project / 'work' / 'iter_3.pth').is_file()
