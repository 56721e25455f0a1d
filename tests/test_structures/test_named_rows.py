"""Checks over class names and their rows."""

import pytest
import torch

from mmdet_dino_r1.structures.named_rows import check_named_rows, repeated_names, with_nearest


def test_repeated_names_are_sorted_and_named_once():
    assert repeated_names(['b', 'a', 'b', 'a', 'a', 'c']) == ['a', 'b']


def test_rows_that_are_no_numbers():
    rows = torch.tensor([[1.0, 2.0], [float('nan'), 0.0], [0.0, float('-inf')]])
    with pytest.raises(ValueError, match="of a thing are not finite numbers: 'y', 'z'$"):
        check_named_rows('thing', ['x', 'y', 'z'], rows)


def test_missing_names_with_the_nearest_known():
    assert with_nearest(['dogs'], ['cat', 'dog']) == "'dogs' (near: dog)"
    many = with_nearest([f'dog{i}' for i in range(12)], ['dog'])
    assert many.count('near:') == 10 and many.endswith(' and 2 more')
