"""What a bank holds, in a table, in JSON and in pictures."""

import json

import cv2
import numpy as np
import pytest
import torch

from mmdet_dino_r1.lab.prompt_banks.report import (
    describe,
    format_description,
    image_folders,
    rows_to_show,
)
from mmdet_dino_r1.lab.prompt_banks.statistics import bank_statistics
from mmdet_dino_r1.structures import BankExemplars, PromptBank, load_prompt_bank, save_prompt_bank
from mmdet_dino_r1.tools.inspect_prompt_bank import main


def make_bank(img_prefix='', keep=True, names=('cat', 'dog', 'owl'), record=True):
    """Four exemplars per class in as many directions; the last of the first looks like the next."""
    corners = torch.eye(len(names)).repeat_interleave(4, dim=0)
    corners[3] = corners[4]
    labels = torch.arange(len(names)).repeat_interleave(4)
    exemplars = BankExemplars(
        labels,
        torch.tensor([[4.0, 4, 20, 20]] * len(labels)),
        tuple(range(500, 500 + len(labels))),
        tuple(f'{index}.png' for index in range(len(labels))),
        corners if keep else None,
    )
    means = PromptBank.from_exemplars(names, corners, labels).embeddings
    about = dict(shots=4, img_prefix=str(img_prefix), counts={}, weights='w')
    ids = tuple(range(7, 7 + len(names)))
    return PromptBank(tuple(names), means, about, ids, exemplars if record else None)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for index in range(11):  # of twelve
        cv2.imwrite(str(folder / f'{index}.png'), np.full((24, 24, 3), 90, np.uint8))
    return folder


def test_table_outliers_and_pictures(tmp_path, images, capsys):
    path = save_prompt_bank(make_bank(images), tmp_path / 'b.safetensors')
    assert main([str(path)]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ['3', 'classes,', 'width', '3']
    assert ['shots', '4'] in lines and ['weights', 'w'] in lines
    table = {line[0]: line[1:] for line in lines if line and line[0] in ('cat', 'dog', 'owl')}
    assert table['dog'][:2] == ['8', '4'] and table['dog'][2] == '0.00'
    assert table['cat'][3] == 'dog' and table['dog'][3] == 'cat'
    assert '1 outliers: 1 far from the rest of their class, 1 nearer to another class' in out
    assert 'cat: image 503 (3.png), box 4 4 20 20, distance' in out
    assert "far, nearer to 'dog'" in out
    assert err == ''
    folder = tmp_path / 'b_inspection'
    assert {file.name for file in folder.iterdir()} == {'contact_sheet.png'}
    assert cv2.imread(str(folder / 'contact_sheet.png')) is not None


def test_a_tuned_bank_says_so(tmp_path, capsys):
    bank = make_bank()
    bank.provenance['tuning'] = dict(steps=40, tuned=['cat'])
    assert main([str(save_prompt_bank(bank, tmp_path / 'b.safetensors'))]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == '3 classes, width 3, tuned: rows need not be the means of their exemplars'
    assert any(line.split()[:2] == ['tuning', "{'steps':"] for line in others)


def test_json_is_all_there_is_on_stdout(tmp_path, images, capsys):
    path = save_prompt_bank(make_bank(images), tmp_path / 'b.safetensors')
    assert main([str(path), '--json', '--top', '1', '--out', str(tmp_path / 'o')]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry['name'] for entry in told['classes']][-1] == 'owl'
    assert told['classes'][-1]['exemplars'] == 4 and told['classes'][-1]['id'] == 9
    assert [outlier['image_id'] for outlier in told['outliers']] == [503]
    assert told['files'] == [str(tmp_path / 'o' / 'contact_sheet.png')]
    assert told['left_out'] == []


def test_all_boxes_of_an_exemplar_are_named(tmp_path, images, capsys):
    bank = make_bank(images)
    record, number = bank.exemplars, len(bank.exemplars)
    again = [0, 3]  # exemplars that get a second box
    record = BankExemplars(
        torch.cat([record.labels, record.labels[again]]),
        torch.cat([record.boxes, record.boxes[again] + 1]),
        record.image_ids + (500, 503),
        record.file_names + ('0.png', '3.png'),
        record.embeddings,
        torch.tensor([*range(number), *again]),
    )
    path = save_prompt_bank(bank.with_exemplars(record), tmp_path / 'b.safetensors')
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert 'cat: image 503 (3.png), boxes 4 4 20 20, 5 5 21 21, distance' in out
    rows = [line.split() for line in out.splitlines()]
    assert ['cat', '7', '4'] in [row[:3] for row in rows]
    assert main([str(path), '--json']) == 0
    (outlier,) = json.loads(capsys.readouterr().out)['outliers']
    assert outlier['boxes'] == [[4, 4, 20, 20], [5, 5, 21, 21]]


def test_means_alone_say_what_is_left_out(tmp_path, images, capsys):
    path = save_prompt_bank(make_bank(images, keep=False), tmp_path / 'b.safetensors')
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert 'Spread and outliers are unknown: the bank keeps the means only' in out
    assert 'contact_sheet.png' in out  # the boxes are known all the same


def test_no_record_no_contact_sheet(tmp_path, capsys):
    path = save_prompt_bank(make_bank(record=False), tmp_path / 'b.safetensors')
    assert main([str(path), '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['outliers'] is None and told['classes'][0]['exemplars'] is None
    assert told['left_out'] == ['contact sheet: the bank does not say which boxes it was made of.']
    assert told['files'] == []


def test_images_that_moved_need_to_be_named(tmp_path, images, capsys):
    path = save_prompt_bank(make_bank('/gone/images'), tmp_path / 'b.safetensors')
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert 'Left out: contact sheet: no image folder (named: /gone/images); give --images' in out
    assert main([str(path), '--images', str(images)]) == 0
    assert 'contact_sheet.png' in capsys.readouterr().out
    assert main([str(path), '--images', str(tmp_path / 'nowhere')]) == 2
    assert capsys.readouterr().err.endswith('nowhere is not a folder.\n')


def test_bad_files_end_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path / 'gone')]) == 2
    assert capsys.readouterr().err.startswith('inspect_prompt_bank: There is no prompt bank')
    (tmp_path / 'text').write_text('x')
    assert main([str(tmp_path / 'text')]) == 2
    assert 'text is not a prompt bank' in capsys.readouterr().err
    assert not (tmp_path / 'text_inspection').exists()


def test_of_many_classes_the_top_is_shown():
    names = [f'class {number:03}' for number in range(60)]
    bank = make_bank(names=names)
    statistics = bank_statistics(bank)
    described = describe(bank, statistics)
    lines = format_description(described, top=2).splitlines()
    lines = lines[lines.index('') + 1 :]
    assert [line[:9] for line in lines[1:3]] == ['class 000', 'class 001']
    assert lines[3] == '… and 58 less confusable ones (--top 0 shows all)'
    lines = format_description(described, top=0).splitlines()
    assert sum(line.startswith('class ') for line in lines) == 1 + 60
    assert len(rows_to_show(bank, statistics)) == 40
    assert rows_to_show(bank, statistics)[0] == 0  # has an outlier


def test_outliers_are_cut_at_the_top():
    first = make_bank()
    names = ('ant', 'bee', 'emu')
    both = PromptBank.merge([first, make_bank(names=names)])
    text = format_description(describe(both, bank_statistics(both)), top=1)
    assert '… and ' in text and text.count('distance') == 1


def test_a_single_class_is_no_obstacle(tmp_path, capsys):
    bank = PromptBank(('lone',), torch.ones(1, 2))
    path = save_prompt_bank(bank, tmp_path / 'b.safetensors')
    assert main([str(path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('lone'))
    assert row.split() == ['lone', '–', '–', '–', '–', '–']
    assert main([str(path), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['classes'][0]['similarity'] is None


def test_merged_banks_keep_their_folders(tmp_path, capsys):
    first, second = make_bank('a/'), make_bank('b/', names=('ant', 'bee', 'emu'))
    merged = PromptBank.merge([first, second])
    assert image_folders(merged) == ['a/'] * 3 + ['b/'] * 3
    same = PromptBank.merge([first, make_bank('a/', names=('ant', 'bee', 'emu'))])
    assert image_folders(same) == ['a/'] * 6
    path = save_prompt_bank(merged, tmp_path / 'b.safetensors')
    assert len(load_prompt_bank(path)) == 6
    assert main([str(path)]) == 0
    assert '2 banks: ? (3), ? (3)' in capsys.readouterr().out
