"""Running the shipped benchmark configs, in this process or by the test script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[2]
# Three small sets of real photographs, which are not part of this project.
REAL_DATA = Path(os.environ.get('DINO_R1_REAL_DATA', ROOT.parent / 'shared' / 'data'))


def datasets_in(cfg: Config) -> list:
    """Configs of the datasets that are tested."""
    dataset = cfg.test_dataloader.dataset
    return list(dataset.datasets.values()) if 'datasets' in dataset else [dataset]


def pipeline_of(cfg: Config) -> list:
    """The test pipeline, which the members of a group have in common."""
    dataset = cfg.test_dataloader.dataset
    return dataset.get('common', dataset).pipeline


def run_here(cfg: Config) -> dict:
    """Metrics of a test."""
    return Runner.from_cfg(cfg).test()


def run_script(cfg: Config, count: int, *args: str) -> dict:
    """The record of a test by the test script, in several processes or one; more flags follow."""
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    path = Path(cfg.work_dir) / 'config.py'
    cfg.dump(path)
    launcher = ['--launcher', 'pytorch'] if count > 1 else []
    torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={count}']
    command = [
        *(sys.executable, *(torchrun if count > 1 else [])),
        *('-m', 'mmdet_dino_r1.tools.test', str(path), cfg.load_from, *launcher, *args),
    ]
    around = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(
        command, env=around, cwd=cfg.work_dir, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return record_of(cfg.work_dir)


def record_of(work_dir: str) -> dict:
    """What the test wrote beside its metrics."""
    (path,) = Path(work_dir).glob('*/metrics/test.json')
    return json.loads(path.read_text())


def assert_same_detections(first: Path, second: Path) -> None:
    """Two COCO result files hold the same detections, image by image, best first."""
    both = []
    for path in (first, second):
        by_image: dict = {}
        for item in json.loads(path.read_text()):
            by_image.setdefault(item['image_id'], []).append(item)
        both.append(by_image)
    assert both[0].keys() == both[1].keys() and both[0]
    for image_id, found in both[0].items():
        other = both[1][image_id]
        assert [d['category_id'] for d in found] == [d['category_id'] for d in other]
        for key, tolerance in (('score', 1e-5), ('bbox', 1e-2)):
            torch.testing.assert_close(
                torch.tensor([d[key] for d in found]),
                torch.tensor([d[key] for d in other]),
                atol=tolerance,
                rtol=1e-4,
            )
