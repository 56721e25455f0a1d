"""mmdet's own analysis tools work with the configs of this package, as its scripts stand."""

import runpy
import sys
from pathlib import Path
from warnings import catch_warnings, simplefilter

import mmdet
import pytest
import torch
from conftest import CONFIGS, tiny_model_cfg
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.fileio import dump

from mmdet_dino_r1 import PromptBank, save_prompt_bank

TOOLS = Path(mmdet.__file__).parent / '.mim/tools/analysis_tools'


@pytest.fixture
def run(monkeypatch):
    def run_tool(name, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        runpy.run_path(str(TOOLS / f'{name}.py'), run_name='__main__')

    return run_tool


@pytest.fixture
def config(tiny_shapes, tmp_path):
    """The shipped config of the shapes with a tiny model, in a file."""
    cfg = Config.fromfile(CONFIGS / 'vis_gdino_r18_shapes.py')
    cfg.model = tiny_model_cfg(bbox_head=dict(num_classes=6))
    for stage in ('train', 'val', 'test'):
        cfg[f'{stage}_dataloader'].dataset.data_root = f'{tiny_shapes}/'
    for stage in ('val', 'test'):
        cfg[f'{stage}_evaluator'].ann_file = f'{tiny_shapes}/annotations/val.json'
    cfg.work_dir = str(tmp_path / 'work')
    cfg.dump(tmp_path / 'tiny.py')
    return tmp_path / 'tiny.py'


@pytest.mark.slow
def test_analyze_results(config, tmp_path, run):
    dataset = DATASETS.build(Config.fromfile(config).test_dataloader.dataset)
    results = []
    for index in range(4):  # all is found in the first two images, nothing in the others
        found = dataset.get_data_info(index)['instances'] if index < 2 else []
        results.append(
            dict(
                pred_instances=dict(
                    bboxes=torch.tensor([i['bbox'] for i in found]).reshape(-1, 4),
                    scores=torch.ones(len(found)),
                    labels=torch.tensor([i['bbox_label'] for i in found], dtype=torch.long),
                )
            )
        )
    dump(results, tmp_path / 'out.pkl')
    run('analyze_results', config, tmp_path / 'out.pkl', tmp_path / 'shown', '--topk', 2)
    names = [Path(dataset.get_data_info(index)['img_path']).stem for index in range(4)]
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.glob('shown/*/*.png')}
    assert found == {
        *(f'shown/good/{name}_1.0.png' for name in names[:2]),
        *(f'shown/bad/{name}_0.0.png' for name in names[2:]),
    }


@pytest.mark.slow
def test_get_flops_with_or_without_prompts(config, tmp_path, run, capsys):
    names = tuple(f'class {number}' for number in range(60))
    bank = save_prompt_bank(PromptBank(names, torch.randn(60, 256)), tmp_path / 'a.safetensors')
    counts = []
    for option, is_warned in (
        ('model.bbox_head.num_classes=60', True),
        (f'model.prompt_bank={bank}', False),
        ('model.bbox_head.num_classes=6', True),
    ):
        with catch_warnings(record=True) as caught:
            simplefilter('always')
            run('get_flops', config, '--num-images', 1, '--cfg-options', option)
        assert any('blank ones' in str(warning.message) for warning in caught) is is_warned
        (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith('Flops: ')]
        counts.append(line)
    assert counts[0] == counts[1] != counts[2]
