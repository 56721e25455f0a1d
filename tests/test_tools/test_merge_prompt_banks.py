import pytest
import torch

from mmdet_dino_r1.structures import BankExemplars, PromptBank, load_prompt_bank, save_prompt_bank
from mmdet_dino_r1.tools.merge_prompt_banks import main


@pytest.fixture
def banks(tmp_path):
    """Files of banks by name: two that go together, and what does not."""
    record = BankExemplars(torch.zeros(1).long(), torch.zeros(1, 4), (1,), ('a.jpg',))
    made = dict(
        cat=PromptBank(('cat',), torch.ones(1, 2), dict(weights='w'), (), record),
        dog=PromptBank(('dog',), torch.ones(1, 2), dict(weights='w'), (), record),
        bare=PromptBank(('owl',), torch.ones(1, 2), dict(weights='w')),
        other=PromptBank(('emu',), torch.ones(1, 2), dict(weights='v')),
        wide=PromptBank(('ant',), torch.ones(1, 3), dict(weights='w')),
    )
    return {name: str(save_prompt_bank(bank, tmp_path / name)) for name, bank in made.items()}


def test_two_become_one(banks, tmp_path, capsys):
    out = tmp_path / 'new' / 'both.safetensors'
    assert main([banks['dog'], banks['cat'], '--out', str(out)]) == 0
    assert capsys.readouterr().out == f'{out}: 2 classes of 2 banks, 2 exemplars\n'
    assert load_prompt_bank(out).class_names == ('dog', 'cat')


def test_a_lost_record_is_said(banks, tmp_path, capsys):
    assert main([banks['cat'], banks['bare'], '--out', str(tmp_path / 'o')]) == 0
    assert 'without a record of exemplars, which not all' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['cat', 'cat'], "1 classes are in more than one bank: 'cat'"),
        (['cat', 'wide'], 'different widths'),
        (['cat', 'other'], 'different weights'),
        (['cat'], 'at least two prompt banks, got 1'),
    ],
)
def test_what_does_not_go_together(banks, tmp_path, capsys, names, message):
    out = tmp_path / 'o'
    assert main([*(banks[name] for name in names), '--out', str(out)]) == 2
    err = capsys.readouterr().err
    assert err.startswith('merge_prompt_banks: ') and message in err
    assert not out.exists()


def test_missing_and_broken_files(banks, tmp_path, capsys):
    assert main([banks['cat'], str(tmp_path / 'gone'), '--out', str(tmp_path / 'o')]) == 2
    assert 'There is no prompt bank' in capsys.readouterr().err


def test_an_existing_file_is_replaced_only_when_told(banks, capsys):
    args = [banks['cat'], banks['dog'], '--out', banks['bare']]
    assert main(args) == 2
    assert '--overwrite replaces it' in capsys.readouterr().err
    assert load_prompt_bank(banks['bare']).class_names == ('owl',)
    assert main([*args, '--overwrite']) == 0
    assert load_prompt_bank(banks['bare']).class_names == ('cat', 'dog')
