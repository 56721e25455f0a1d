"""The contact sheet of a bank: every class in its row, every exemplar in its cell."""

import cv2
import numpy as np
import pytest
import torch

from mmdet_dino_r1.lab.prompt_banks.contact_sheet import (
    _BOX,
    _LABEL,
    _PALE,
    _RED,
    contact_sheet,
    shortened,
)
from mmdet_dino_r1.lab.prompt_banks.statistics import bank_statistics
from mmdet_dino_r1.structures import BankExemplars, PromptBank

CELL, STEP = 88, 94
GREEN = (20, 200, 40)


def make_bank(labels, embeddings=None, names=None):
    """A bank of equal boxes; without ``embeddings`` each class has its own direction."""
    labels = torch.tensor(labels)
    if embeddings is None:
        embeddings = torch.eye(int(labels.max()) + 1)[labels]
    number = len(labels)
    record = BankExemplars(
        labels,
        torch.tensor([[20.0, 20, 60, 60]] * number),
        tuple(range(number)),
        tuple(f'{index}.png' for index in range(number)),
        embeddings,
    )
    names = names or [f'class {label}' for label in range(int(labels.max()) + 1)]
    return PromptBank.from_exemplars(names, embeddings, labels).with_exemplars(record)


@pytest.fixture
def image(tmp_path):
    """A file of one colour, 80 x 80."""
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.full((80, 80, 3), GREEN[::-1], np.uint8))
    return path


def sheet_of(bank, paths, **options):
    options.setdefault('rows', range(len(bank)))
    return contact_sheet(bank, paths, bank_statistics(bank), **options)


def cell(sheet, row, column):
    """What stands in a cell."""
    top, left = 6 + row * (CELL + 15 + 6), _LABEL + column * STEP
    return sheet[top : top + CELL, left : left + CELL]


def has(picture, colour):
    return bool((picture == np.array(colour)).all(axis=2).any())


class TestContactSheet:
    """Crops in rows."""

    def test_one_row_per_class_one_cell_per_exemplar(self, image):
        sheet = sheet_of(make_bank([0, 0, 1]), [image] * 3)
        assert sheet.shape == (6 + 2 * 109, _LABEL + 2 * STEP, 3)
        assert has(cell(sheet, 0, 0), GREEN) and has(cell(sheet, 0, 1), GREEN)
        assert has(cell(sheet, 1, 0), GREEN)
        assert (cell(sheet, 1, 1) == 255).all()
        assert not (sheet[:, :_LABEL] == 255).all()  # the names

    def test_the_box_is_outlined_with_its_surroundings(self, image):
        shown = cell(sheet_of(make_bank([0]), [image]), 0, 0)
        # 40 pixels and a quarter on each side are 60: the box starts at 10 of 60, of 88 here
        rows, columns = np.nonzero((shown == np.array(_BOX)).all(axis=2))
        assert (rows.min(), columns.min()) == (15, 15)
        assert (rows.max(), columns.max()) == (73, 73)
        assert (shown[2, 2] == GREEN).all()

    def test_boxes_that_were_encoded_together_share_a_cell(self, image):
        record = BankExemplars(
            torch.zeros(3).long(),
            torch.tensor([[20.0, 20, 40, 60], [0, 0, 80, 80], [50.0, 30, 60, 40]]),
            (0, 1, 0),
            ('a', 'b', 'a'),
            torch.eye(2),
            torch.tensor([0, 1, 0]),
        )
        bank = PromptBank(('class',), torch.ones(1, 2)).with_exemplars(record)
        sheet = sheet_of(bank, [image] * 2)
        assert sheet.shape == (6 + 109, _LABEL + 2 * STEP, 3)
        drawn = (cell(sheet, 0, 0) == np.array(_BOX)).all(axis=2)
        rows, columns = np.nonzero(drawn)
        # together 40 pixels wide and high, and a quarter on each side, as the box of the test above
        assert (rows.min(), columns.min()) == (15, 15)
        assert (rows.max(), columns.max()) == (73, 73)
        # in the rows of the second one 4 vertical lines are crossed; above it the first one's 2
        assert drawn[35].sum() == 4 and drawn[20].sum() == 2

    def test_beyond_the_edge_of_the_image_it_is_pale(self, image):
        bank = make_bank([0])
        bank.exemplars.boxes[0] = torch.tensor([-10.0, 30, 40, 70])
        shown = cell(sheet_of(bank, [image]), 0, 0)
        assert (shown[:, 0] == _PALE).all() and (shown[44, 40] == GREEN).all()

    @pytest.mark.parametrize('box', [[0, 0, 0, 0], [500, 500, 900, 900], [-9e9, -9e9, 9e9, 9e9]])
    def test_strange_boxes_are_no_obstacle(self, image, box):
        bank = make_bank([0])
        bank.exemplars.boxes[0] = torch.tensor(box)
        assert cell(sheet_of(bank, [image]), 0, 0).shape == (CELL, CELL, 3)

    def test_files_that_cannot_be_read_leave_a_note(self, image, tmp_path):
        text = tmp_path / 'text.png'
        text.write_text('no image')
        sheet = sheet_of(make_bank([0, 0, 0]), [tmp_path / 'gone.png', text, image])
        for column in (0, 1):
            assert (cell(sheet, 0, column)[0, 0] == _PALE).all()
            assert not has(cell(sheet, 0, column), GREEN)
            assert (cell(sheet, 0, column) != _PALE).any()  # the note
        assert has(cell(sheet, 0, 2), GREEN)

    def test_outliers_come_first_framed_in_red(self, image):
        embeddings = torch.tensor([[1.0, 0]] * 5 + [[0, 1.0]] + [[-1.0, 0]] * 4)
        bank = make_bank([0] * 6 + [1] * 4, embeddings)
        statistics = bank_statistics(bank)
        assert [outlier.exemplar for outlier in statistics.outliers] == [5]
        sheet = sheet_of(bank, [image] * 10, columns=3)
        assert has(cell(sheet, 0, 0), _RED)
        assert not has(sheet[:, _LABEL + STEP :], _RED)
        assert has(sheet[6 + CELL : 6 + CELL + 15], _RED)  # the id below it

    def test_rows_and_columns_can_be_limited(self, image):
        bank = make_bank([0] * 5 + [1] + [2] * 2)
        sheet = sheet_of(bank, [image] * 8, rows=[2, 0], columns=3)
        assert sheet.shape == (6 + 2 * 109, _LABEL + 3 * STEP, 3)
        assert has(cell(sheet, 0, 1), GREEN) and not has(cell(sheet, 0, 2), GREEN)
        assert has(cell(sheet, 1, 2), GREEN)

    def test_names_in_any_script(self, image):
        sheets = [sheet_of(make_bank([0], names=[name]), [image]) for name in ('Ü', 'Я', 'a' * 99)]
        assert (sheets[0] != sheets[1]).any()
        assert sheets[2].shape == sheets[0].shape

    def test_a_bank_without_record_has_no_sheet(self):
        bank = PromptBank(('a',), torch.ones(1, 2))
        with pytest.raises(ValueError, match='does not say which boxes'):
            sheet_of(bank, [])


def test_long_texts_are_cut_in_the_middle():
    assert shortened('abcdefghi', 9) == 'abcdefghi'
    assert shortened('abcdefghij', 9) == 'abcd…ghij'
    assert shortened('abcdefghij', 8) == 'abcd…hij'
