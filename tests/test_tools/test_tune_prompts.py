"""The command line of the tuning; the tuning itself is tested with ``apis`` and ``engine``."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import build_tiny, tiny_model_cfg
from mmengine.config import Config

import mmdet_dino_r1.apis
from mmdet_dino_r1.structures import PromptBank, load_prompt_bank, save_prompt_bank
from mmdet_dino_r1.tools.detect import main as detect
from mmdet_dino_r1.tools.tune_prompts import main, parse_args, summary
from mmdet_dino_r1.utils.progress import bar_of_steps

ROOT = Path(__file__).resolve().parents[2]
TUNING = dict(
    steps=40,
    most_steps=200,
    images=9,
    tuned=['cat', 'dog'],
    kept=['owl'],
    held_out=[[0, 1.5], [40, 0.25], [80, 0.5]],
)


@pytest.fixture
def calls(monkeypatch):
    """Stands in for the tuning; keeps what it was called with."""
    received = []

    def tune(config, checkpoint, out, **options):
        received.append((config, checkpoint, out, options))
        bank = PromptBank(('cat', 'dog', 'owl'), torch.eye(3), dict(tuning=TUNING))
        save_prompt_bank(bank, out)
        return bank

    monkeypatch.setattr(mmdet_dino_r1.apis, 'tune_prompt_bank', tune)
    return received


def test_every_option_arrives(tmp_path, calls):
    out = tmp_path / 'b'
    options = (
        'c.py w.pth --ann a.json --img i --bank b.st --shots 8 --seed 3 --classes cat,dog '
        '--steps 9 --lr 0.1 --folds 2 --fewest-images 1 --cache-gib 0.5 --half-cache '
        '--device cpu --cfg-options model.x=1'
    )
    assert main([*options.split(), '--out', str(out)]) == 0
    asked = dict(
        ann='a.json',
        img='i',
        bank='b.st',
        shots=8,
        seed=3,
        classes=['cat', 'dog'],
        steps=9,
        lr=0.1,
        folds=2,
        fewest_images=1,
        cache_gib=0.5,
        half_cache=True,
        device='cpu',
        progress=None,  # no terminal
        cfg_options={'model.x': 1},
    )
    assert calls == [('c.py', 'w.pth', out, asked)]


def test_what_is_not_given_is_left_to_the_function(tmp_path, calls):
    main(['c.py', 'w.pth', '--out', str(tmp_path / 'b')])
    assert calls[0][3] == dict(half_cache=False, progress=None)


def test_an_existing_file_is_refused_before_any_work(tmp_path, calls, capsys):
    out = tmp_path / 'b'
    out.touch()
    assert main(['c.py', 'w.pth', '--out', str(out)]) == 2
    assert capsys.readouterr().err == f'tune_prompts: {out} exists; --overwrite replaces it.\n'
    assert calls == []
    assert main(['c.py', 'w.pth', '--out', str(out), '--overwrite']) == 0


def test_the_summary():
    bank = PromptBank(('cat', 'dog', 'owl'), torch.eye(3), dict(tuning=TUNING))
    assert summary(bank, Path('b'), 1.26).splitlines() == [
        'b: 3 classes, 2 tuned on 9 images by 40 of at most 200 steps; 1.3 s',
        'Loss on held-out images: 1.5000 before, 0.2500 after',
        '1 classes stay as they began: owl',
    ]
    bank = replace(bank, provenance=dict(tuning=TUNING | dict(steps=0)))
    assert summary(bank, Path('b'), 1.26).splitlines() == [
        'b: 3 classes, 0 tuned on 9 images by 0 of at most 200 steps; 1.3 s',
        'Loss on held-out images: 1.5000 before, 1.5000 after',
        '3 classes stay as they began: cat, dog, owl',
    ]


def test_a_file_to_write_is_required(capsys):
    with pytest.raises(SystemExit):
        parse_args(['c.py', 'w.pth'])
    assert '--out' in capsys.readouterr().err


def test_a_bar_moves_on_a_terminal_alone(monkeypatch, capsys):
    assert bar_of_steps() is None
    monkeypatch.setattr('sys.stdout.isatty', lambda: True, raising=False)
    assert bar_of_steps(visible=False) is None
    show = bar_of_steps()
    for done in (1, 3):
        show(done, 3)
        assert capsys.readouterr().out.count('\n') == (done == 3)  # ends the bar's line


@pytest.fixture
def tiny(tmp_path, tiny_shapes):
    """Command line of a tuning with a tiny model of late prompts on six images of two classes."""
    cfg = Config.fromfile(ROOT / 'configs/vis_gdino_r18_shapes.py')
    cfg.model = tiny_model_cfg(fusion=False)
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'Resize':
            step['scale'] = (64, 64)
    cfg.dump(tmp_path / 'tiny.py')
    state = build_tiny(fusion=False).state_dict()
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'tiny.pth')
    split = ['--ann', f'{tiny_shapes}/annotations/prompts_novel.json', '--img', str(tiny_shapes)]
    files = [str(tmp_path / 'tiny.py'), str(tmp_path / 'tiny.pth')]
    return [*files, *split, '--steps', '2', '--folds', '2']


def test_a_real_bank_that_detects(tmp_path, tiny, tiny_shapes, capsys):
    out = tmp_path / 'tuned.safetensors'
    assert main([*tiny, '--out', str(out)]) == 0
    said = capsys.readouterr().out
    assert f'{out}: 2 classes, ' in said and 'Loss on held-out images: ' in said
    bank = load_prompt_bank(out)
    assert len(bank) == 2 and bank.provenance['tuning']['most_steps'] == 2
    image, found = next(tiny_shapes.rglob('*.png')), tmp_path / 'found'
    asked = ['--input', str(image), '--bank', str(out), '--out', str(found), '--score-thr', '0']
    assert detect([*tiny[:2], *asked, '--device', 'cpu', '--no-pictures']) == 0
    assert json.loads((found / 'predictions.json').read_text())


def test_real_mistakes(tmp_path, tiny, capsys):
    out = ['--out', str(tmp_path / 'b')]
    for more, message in (
        (['--classes', 'cat'], 'cat'),
        (['--shots', '0'], 'shots must be at least 1'),
        (['--ann', 'gone.json'], 'gone.json'),
        (['--img', str(tmp_path)], 'images with exemplars are missing'),
        (['--bank', 'gone.safetensors'], 'gone.safetensors'),
        (['--launcher', 'pytorch'], '-m mmdet_dino_r1.tools.tune_prompts'),
    ):
        assert main([*tiny, *more, *out]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith('tune_prompts: ') and message in last
    assert not (tmp_path / 'b').exists()


@pytest.mark.ddp
def test_two_processes_tune_the_same_bank(tmp_path, tiny, in_two_processes):
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert main([*tiny, '--device', 'cpu', '--out', str(one)]) == 0
    said = in_two_processes('tune_prompts', *tiny, '--out', str(two))
    assert one.read_bytes() == two.read_bytes()
    assert ['classes, ' in output for output in said] == [True, False]
