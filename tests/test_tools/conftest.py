"""A tiny model as files, for the tools that take a config and a checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, build_tiny, find_free_port, tiny_model_cfg
from mmengine.config import Config


@pytest.fixture
def tiny_files(tmp_path):
    """Paths of config and checkpoint, as on a command line."""
    cfg = Config.fromfile(CONFIGS / 'vis_gdino_r18_shapes.py')
    cfg.model = tiny_model_cfg()
    cfg.dump(tmp_path / 'tiny.py')
    torch.save(dict(state_dict=build_tiny().state_dict(), meta={}), tmp_path / 'tiny.pth')
    return [str(tmp_path / 'tiny.py'), str(tmp_path / 'tiny.pth')]


@pytest.fixture
def in_two_processes():
    """Runs a tool as torchrun does; gives what each process said."""

    def run(tool: str, *args: str) -> list[str]:
        port = str(find_free_port())
        ranks = [
            subprocess.Popen(
                [sys.executable, '-m', f'mmdet_dino_r1.tools.{tool}', *args]
                + ['--device', 'cpu', '--launcher', 'pytorch'],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ
                | dict(
                    PYTHONPATH=str(Path(__file__).resolve().parents[2]),
                    OMP_NUM_THREADS='1',  # as here: sums over more threads round otherwise
                    RANK=str(rank),
                    LOCAL_RANK=str(rank),
                    WORLD_SIZE='2',
                    MASTER_ADDR='127.0.0.1',
                    MASTER_PORT=port,
                ),
            )
            for rank in (0, 1)
        ]
        said = [process.communicate(timeout=120)[0] for process in ranks]
        assert [process.returncode for process in ranks] == [0, 0], said
        return said

    return run
