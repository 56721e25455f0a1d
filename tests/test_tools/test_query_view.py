"""The command line on the tiny set, with two tiny models of random weights."""

import json

import cv2
import numpy as np
import pytest
import torch
from conftest import CONFIGS, build_tiny, tiny_model_cfg
from mmengine.config import Config

from mmdet_dino_r1.lab.query_view.view import load_query_view
from mmdet_dino_r1.structures import PromptBank, save_prompt_bank
from mmdet_dino_r1.tools.query_view import main, parse_args


@pytest.fixture
def command(tiny_shapes, tmp_path) -> list[str]:
    """Config, two checkpoints and a folder to write into."""
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    cfg.model = tiny_model_cfg(dict(mute_share=0.5))
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{tiny_shapes}/'
    cfg.default_hooks.prompt_bank.bank.shots = 2
    cfg.dump(tmp_path / 'tiny.py')
    for name, seed in (('sft', 1), ('grqo', 2)):
        torch.manual_seed(seed)
        torch.save(dict(state_dict=build_tiny(dict()).state_dict()), tmp_path / f'{name}.pth')
    files = [str(tmp_path / name) for name in ('tiny.py', 'sft.pth', 'grqo.pth')]
    return [*files, '--out', str(tmp_path / 'out'), '--device', 'cpu']


def test_pictures_numbers_and_table(command, tmp_path, capsys):
    assert main([*command, '--images', '2', '--labels', 'SFT,GRQO']) == 0
    out = tmp_path / 'out'
    pictures = {path.stem for path in out.glob('*.png')}
    assert pictures == {'1', '4', 'rewards'}
    assert all(cv2.imread(str(out / f'{name}.png')).std() > 5 for name in pictures)
    summary = json.loads((out / 'summary.json').read_text())
    assert list(summary) == ['SFT', 'GRQO']
    assert summary['SFT']['prompts']['shots'] == 2
    for label, entry in summary.items():
        for image, rows in entry['images'].items():
            view = load_query_view(out / label / f'{image}.npz')
            assert view.summary() == rows
            assert view.truth.num_kept == 5  # the config's share
    printed = capsys.readouterr().out
    first = [rows[0]['reward'] for rows in summary['SFT']['images'].values()]
    line = next(line for line in printed.splitlines() if line.startswith('SFT '))
    assert line.split()[:2] == ['SFT', 'selection']
    assert float(line.split()[3]) == pytest.approx(np.mean(first), abs=1e-3)
    assert 'Means over 2 images' in printed and 'N = 2 exemplars' in printed


def test_given_banks_and_images(command, tmp_path, tiny_shapes, capsys):
    coco = json.loads((tiny_shapes / 'annotations/val.json').read_text())
    names = tuple(category['name'] for category in coco['categories'])
    bank = str(save_prompt_bank(PromptBank(names, torch.randn(4, 256)), tmp_path / 'b'))
    assert main([*command, '--image-ids', '3', '--bank', bank, bank]) == 0
    assert 'made with other weights' in capsys.readouterr().err
    written = {str(path.relative_to(tmp_path / 'out')) for path in tmp_path.glob('out/**/*.*')}
    assert written == {'3.png', 'rewards.png', 'summary.json', 'sft/3.npz', 'grqo/3.npz'}
    assert load_query_view(tmp_path / 'out/sft/3.npz').class_names == names


def test_exemplars_are_matched_by_id_where_the_config_says_so(command, tmp_path, tiny_shapes):
    """As a test does it: the prompts' file has other names for the same ids."""
    coco = json.loads((tiny_shapes / 'annotations/train.json').read_text())
    names = [category['name'] for category in coco['categories']]
    for category in coco['categories']:
        category['name'] += ' by another name'
    renamed = tmp_path / 'renamed.json'
    renamed.write_text(json.dumps(coco))
    split = {
        'ann_file': renamed,
        'data_prefix.img': f'{tiny_shapes}/',
        'match': 'id',
    }
    split = [f'default_hooks.prompt_bank.bank.{key}={value}' for key, value in split.items()]
    assert main([*command, '--images', '1', '--cfg-options', *split]) == 0
    prompts = json.loads((tmp_path / 'out/summary.json').read_text())['grqo']['prompts']
    assert sorted(prompts['counts']) == sorted(names)
    assert prompts['ann_file'] == str(renamed)


@pytest.mark.parametrize(
    ('more', 'reason'),
    [
        (['--image-ids', '1,99'], 'no image 99'),
        (['--bank', 'a', 'b'], 'There is no file a'),
        (['--device', 'cuda:99'], "The device 'cuda:99' cannot be used"),
        (
            ['--cfg-options', 'test_dataloader.dataset.datasets=[]'],
            'one dataset at a time',
        ),
    ],
)
def test_what_is_wrong_is_said(command, capsys, more, reason):
    assert main([*command, *more]) == 2
    assert reason in capsys.readouterr().err


def test_command_line():
    options = parse_args(['c.py', 'a/x.pth', 'b/x.pth', '--image-ids', '1,x', '--out', 'o'])
    assert options.labels == ['a_x', 'b_x'] and options.image_ids == ['1', 'x']
    for wrong in (['--labels', 'a,b'], ['--bank', 'a', 'b'], ['--images', '0']):
        with pytest.raises(SystemExit):
            parse_args(['c.py', 'x.pth', *wrong, '--out', 'o'])
