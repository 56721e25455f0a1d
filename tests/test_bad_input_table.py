"""Every row of docs/bad_input.md names tests, and they exist."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEADER = '| what is wrong | what happens | test |'
ROWS = [
    line
    for line in (ROOT / 'docs' / 'bad_input.md').read_text(encoding='utf-8').splitlines()
    if line.startswith('|') and line != HEADER and not set(line) <= set('|- ')
]


@functools.cache
def names_in(path: str) -> set[str]:
    """'test_a' and 'TestB::test_c' in a test file, which is not imported."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding='utf-8')).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]
            found |= {f'{node.name}::{name}' for name in methods}
    return {name for name in found if name.rpartition('::')[2].startswith('test_')}


def missing_tests(row: str) -> list[str]:
    """What the last cell of a row names and there is not; a row that names none lacks one."""
    _, wrong, happens, tests, _ = re.split(r'(?<!\\)\|', row)
    named = re.findall(r'`(tests/\S+\.py)::([\w:]+)`', tests)
    lacking = [f'{path}::{name}' for path, name in named if name not in names_in(path)]
    if not (named and wrong.strip() and happens.strip()):
        lacking.append('a cell is empty')
    return lacking


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.split('|')[1].strip()[:60])
def test_every_row_names_tests_that_exist(row):
    assert missing_tests(row) == []


def test_a_row_without_its_test_would_be_found():
    here = 'tests/test_bad_input_table.py'
    good = f'{here}::test_a_row_without_its_test_would_be_found'
    assert missing_tests(f'| a | b | `{good}` |') == []
    assert missing_tests(f'| a | b | `{good}`, `{here}::test_none` |') == [f'{here}::test_none']
    assert missing_tests('| a | b | |') == ['a cell is empty']
    assert missing_tests(f'| a | | `{good}` |') == ['a cell is empty']
    method = 'tests/test_datasets/test_data_check.py::TestBoxes::test_kinds'
    assert missing_tests(f'| a | b | `{method}` |') == []
    assert missing_tests(f'| a | b | `{method}s` |') == [f'{method}s']
