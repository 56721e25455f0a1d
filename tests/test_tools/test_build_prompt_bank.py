"""The command line of the builder; the building itself is tested with ``apis``."""

import pytest
import torch
from conftest import build_tiny, tiny_model_cfg
from mmengine.config import Config
from model_variants import JOINT

import mmdet_dino_r1.apis
from mmdet_dino_r1.structures import PromptBank, load_prompt_bank, save_prompt_bank
from mmdet_dino_r1.tools.build_prompt_bank import main, parse_args, summary
from mmdet_dino_r1.utils.command_line import class_list

ABOUT = dict(num_exemplars=7, fewest=3, most=4, num_images=5, images_in_file=9)


@pytest.fixture
def calls(monkeypatch):
    """Stands in for the builder; keeps what it was called with."""
    received = []

    def build(config, checkpoint, out, **options):
        received.append((config, checkpoint, out, options))
        bank = PromptBank(('cat', 'dog'), torch.eye(2), ABOUT)
        save_prompt_bank(bank, out)
        return bank

    monkeypatch.setattr(mmdet_dino_r1.apis, 'build_prompt_bank', build)
    return received


def test_every_option_arrives(tmp_path, calls):
    out = tmp_path / 'b'
    options = (
        'c.py w.pth --ann a.json --img i --support l.json --shots 8 --seed 3 --classes cat,dog '
        '--batch-size 2 --workers 1 --means-only --skip-missing --device cpu '
        '--cfg-options model.x=1 y=a,b'
    )
    assert main([*options.split(), '--out', str(out)]) == 0
    assert calls == [
        (
            'c.py',
            'w.pth',
            out,
            dict(
                ann='a.json',
                img='i',
                support='l.json',
                shots=8,
                seed=3,
                classes=['cat', 'dog'],
                batch_size=2,
                num_workers=1,
                keep_exemplars=False,
                skip_missing=True,
                device='cpu',
                progress=True,
                cfg_options={'model.x': 1, 'y': ['a', 'b']},
            ),
        )
    ]


def test_what_is_not_given_is_left_to_the_config(tmp_path, calls):
    main(['c.py', 'w.pth', '--out', str(tmp_path / 'b')])
    options = calls[0][3]
    assert options.pop('progress') is True
    assert set(options.values()) == {None}  # the config decides


def test_an_existing_file_is_refused_before_any_work(tmp_path, calls, capsys):
    out = tmp_path / 'b'
    out.touch()
    assert main(['c.py', 'w.pth', '--out', str(out)]) == 2
    assert capsys.readouterr().err == (
        f'build_prompt_bank: {out} exists; --overwrite replaces it.\n'
    )
    assert calls == []
    assert main(['c.py', 'w.pth', '--out', str(out), '--overwrite']) == 0


@pytest.mark.parametrize('error', [ValueError('no box for cat'), FileNotFoundError('no file x')])
def test_mistakes_end_in_one_line(tmp_path, monkeypatch, capsys, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(mmdet_dino_r1.apis, 'build_prompt_bank', fail)
    assert main(['c.py', 'w.pth', '--out', str(tmp_path / 'b')]) == 2
    assert capsys.readouterr().err == f'build_prompt_bank: {error}\n'


def test_the_summary(tmp_path):
    path = tmp_path / 'b'
    path.write_bytes(bytes(2048))
    bank = PromptBank(('cat', 'dog'), torch.eye(2), ABOUT)
    assert summary(bank, path, 1.26) == (
        f'{path}: 2 classes, 7 exemplars (fewest 3, most 4 of a class), from 5 of 9 images; '
        '2 KiB, 1.3 s'
    )
    left_out = [f'class {number}' for number in range(12)]
    bank = PromptBank(('cat', 'dog'), torch.eye(2), ABOUT | dict(classes_left_out=left_out))
    last = summary(bank, path, 1).splitlines()[1]
    assert last.startswith('12 classes without a box were left out: class 0, class 1,')
    assert last.endswith('class 9 and 2 more')


def test_classes_from_the_command_line_or_a_file(tmp_path):
    assert class_list('cat, hot dog,,owl') == ['cat', 'hot dog', 'owl']
    path = tmp_path / 'names.txt'
    path.write_text('猫\nflip, flop\n\n', encoding='utf-8')
    assert class_list(str(path)) == ['猫', 'flip, flop']


def test_a_file_to_write_is_required(capsys):
    with pytest.raises(SystemExit):
        parse_args(['c.py', 'w.pth'])
    assert '--out' in capsys.readouterr().err


def test_the_launcher_needs_torchrun(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv('RANK', raising=False)
    args = ['c.py', 'w.pth', '--out', str(tmp_path / 'b'), '--launcher', 'pytorch']
    assert main(args) == 2
    assert 'torchrun --nproc_per_node N' in capsys.readouterr().err


@pytest.fixture
def tiny(tiny_files, tiny_shapes):
    """Command line of a build with a tiny model on the tiny set."""
    cfg = Config.fromfile(tiny_files[0])
    for step in cfg.test_dataloader.dataset.pipeline:
        if step['type'] == 'Resize':
            step['scale'] = (64, 64)
    cfg.train_dataloader.dataset.data_root = f'{tiny_shapes}/'
    cfg.dump(tiny_files[0])
    return [*tiny_files, '--shots', '2']


def test_a_real_bank_of_the_training_set(tmp_path, tiny, capsys):
    out = tmp_path / 'b.safetensors'
    assert main([*tiny, '--out', str(out)]) == 0
    bank = load_prompt_bank(out)
    assert len(bank) == 4 and set(bank.counts.values()) == {2}
    assert bank.exemplars.embeddings.shape == (8, bank.dim)
    assert f'{out}: 4 classes, 8 exemplars (fewest 2, most 2 of a class), from' in (
        capsys.readouterr().out
    )


def test_a_real_bank_of_another_split(tmp_path, tiny, tiny_shapes):
    out = tmp_path / 'b.safetensors'
    split = ['--ann', f'{tiny_shapes}/annotations/prompts_novel.json', '--img', str(tiny_shapes)]
    assert main([*tiny, *split, '--means-only', '--out', str(out)]) == 0
    bank = load_prompt_bank(out)
    assert len(bank) == 2 and bank.exemplars.embeddings is None


def test_real_mistakes(tmp_path, tiny, capsys):
    out = ['--out', str(tmp_path / 'b')]
    for more, message in (
        (['--classes', 'cat'], 'cat'),
        (['--shots', '0'], 'shots must be at least 1'),
        (['--ann', 'gone.json', '--img', '.'], 'gone.json'),
        (['--img', '.'], 'give one of these as well'),
    ):
        assert main([*tiny, *more, *out]) == 2
        err = capsys.readouterr().err
        assert err.splitlines()[-1].startswith('build_prompt_bank: ') and message in err
    assert main(['gone.py', tiny[1], *out]) == 2
    assert "ships no config 'gone.py'" in capsys.readouterr().err
    assert main([tiny[0], 'gone.pth', *out]) == 2
    assert 'gone.pth' in capsys.readouterr().err
    assert not (tmp_path / 'b').exists()


@pytest.mark.ddp
@pytest.mark.parametrize('model', [dict(), JOINT], ids=['each box', 'joint'])
def test_two_processes_make_the_same_bank(tmp_path, tiny, model, in_two_processes):
    cfg = Config.fromfile(tiny[0])
    cfg.model = tiny_model_cfg(**model)
    cfg.dump(tiny[0])
    torch.save(dict(state_dict=build_tiny(**model).state_dict(), meta={}), tiny[1])
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert main([*tiny, '--out', str(one)]) == 0
    said = in_two_processes('build_prompt_bank', *tiny, '--out', str(two))
    assert one.read_bytes() == two.read_bytes()
    assert ['8 exemplars' in output for output in said] == [True, False]
