"""The example of docs/labelling.md on Ray Data, with two actors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_dino_r1 import save_prompt_bank
from mmdet_dino_r1.apis import DINOR1Inferencer, Reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_example_of_the_page_runs_as_printed(tmp_path, tiny_files):
    pytest.importorskip('ray.data', reason="pip install 'ray[data]'")
    for source, name in zip(tiny_files, ('dino_r1_swin_t_coco.py', 'epoch_12.pth'), strict=True):
        Path(source).rename(tmp_path / name)
    (tmp_path / 'photos').mkdir()
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'photos/{index}.jpg'), pixels)
    (tmp_path / 'photos/6.jpg').write_bytes(b'no image')
    files = [str(tmp_path / name) for name in ('dino_r1_swin_t_coco.py', 'epoch_12.pth')]
    inferencer = DINOR1Inferencer(*files, 'cpu')
    reference = Reference(tmp_path / 'photos/0.jpg', [[4, 4, 30, 30]], 'can')
    save_prompt_bank(inferencer.set_prompts([reference]), tmp_path / 'drinks.safetensors')

    page = (ROOT / 'docs/labelling.md').read_text(encoding='utf-8')
    (snippet,) = [
        text for text in re.findall(r'```python\n(.*?)```', page, re.S) if 'import ray' in text
    ]
    snippet = snippet.replace('skip_broken=True', 'skip_broken=True, score_thr=0')
    snippet = snippet.replace('batch_size=64', 'batch_size=4')  # work for both
    (tmp_path / 'run.py').write_text(snippet)
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', RAY_USAGE_STATS_ENABLED='0')
    run = subprocess.run(
        [sys.executable, 'run.py'], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    rows = [json.loads(row) for f in (tmp_path / 'found_by_ray').iterdir() for row in f.open()]
    by_name = {Path(row['path']).name: json.loads(row['found']) for row in rows}
    assert len(rows) == 7 and by_name['6.jpg'] is None
    for index in range(6):
        (alone,) = inferencer(tmp_path / f'photos/{index}.jpg', score_thr=0)['predictions']
        np.testing.assert_allclose(by_name[f'{index}.jpg']['bboxes'], alone['bboxes'], atol=1e-3)
