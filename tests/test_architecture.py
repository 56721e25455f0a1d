"""Imports point one way, and files stay small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmdet_dino_r1'
NAME = PACKAGE.name

# what each part may import of this package, itself aside
MAY_IMPORT = {
    'structures': set(),
    'models.backbones': {'structures'},
    'models.layers': {'structures'},
    'models.losses': {'structures'},
    'models.task_modules': {'structures'},
    'models.dense_heads': {'structures', 'models.layers', 'models.losses', 'models.task_modules'},
    'models.detectors': {
        'structures',
        'models.layers',
        'models.losses',
        'models.task_modules',
        'models.dense_heads',
    },
    'engine': {'structures'},
    'datasets': {'structures'},
    'evaluation': {'structures'},
    'visualization': {'structures'},
    'apis': {'structures', 'models.losses', 'models.detectors', 'engine', 'datasets'},
    'web': {'apis', 'structures', 'visualization'},
    'benchmark': {
        'structures',
        'models.detectors',
        'engine',
        'apis',
        'datasets',
        'visualization',
    },
    'study': {'structures', 'engine', 'apis', 'datasets', 'visualization'},
}
# of the top level, which imports no part when it is imported itself
LEAVES = {
    f'{NAME}.{name}' for name in ('version', 'shipped', 'compat', 'safe_files', 'environment')
}
SOURCES = sorted(path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts)


def part_of(module: str) -> str | None:
    """'mmdet_dino_r1.models.layers.fusion' -> 'models.layers'."""
    inner = module.removeprefix(f'{NAME}.')
    return next((part for part in MAY_IMPORT if f'{inner}.'.startswith(f'{part}.')), None)


def imported(path: Path) -> set[str]:
    """Absolute names of this package's modules that a file imports."""
    module = '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
    package = (
        module.removesuffix('.__init__') if path.stem == '__init__' else module.rpartition('.')[0]
    )
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                package.split('.')[: len(package.split('.')) - node.level + 1] if node.level else []
            )
            names.add('.'.join([*base, *([node.module] if node.module else [])]))
    return {name for name in names if name.split('.')[0] == NAME}


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    here = part_of('.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts))
    if here is None:
        return  # top level and tools may import anything
    allowed = MAY_IMPORT[here] | {here}
    wrong = {name for name in imported(path) if part_of(name) not in allowed} - LEAVES
    assert not wrong, f'{path.relative_to(PACKAGE)} imports {sorted(wrong)}'


def test_the_arrows_would_catch_a_wrong_import():
    layer = PACKAGE / 'models/layers/query_selector.py'
    assert imported(layer) == {f'{NAME}.structures'}
    assert part_of(f'{NAME}.models.detectors.dino_r1') not in MAY_IMPORT['models.layers']


@pytest.mark.parametrize(
    ('part', 'tools'),
    [
        ('web', {'tools/web_demo.py'}),
        ('benchmark', {'tools/benchmark.py', 'tools/gpu_check.py'}),
        ('study', {'tools/study.py'}),
    ],
)
def test_only_its_tools_import_the(part, tools):
    users = {path for path in SOURCES if any(part_of(name) == part for name in imported(path))}
    outside = {str(path.relative_to(PACKAGE)) for path in users if path.parent.name != part}
    assert outside == tools


def test_files_stay_small():
    long = {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 450}
    assert not long
