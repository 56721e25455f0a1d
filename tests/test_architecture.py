"""Imports point one way, ring by ring (docs/architecture.md), and files stay small."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmdet_dino_r1'
NAME = PACKAGE.name

GROUND = {'utils', 'config'}
# what each part of the method may import, itself and the ground aside
METHOD = {
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
}
PERSON = {'apis': set(), 'checks': set(), 'web': {'apis', 'checks'}}
MAY_IMPORT = (
    {'utils': set(), 'config': {'utils'}}
    | {part: GROUND | others for part, others in METHOD.items()}
    | {part: GROUND | set(METHOD) | others for part, others in PERSON.items()}
    | {part: GROUND | set(METHOD) | set(PERSON) | {'testing'} for part in ('lab', 'testing')}
)
LABORATORY_TOOLS = {
    *('benchmark', 'benchmark_table', 'demo_report', 'gpu_check', 'inspect_prompt_bank'),
    *('plot_training', 'query_view', 'study'),
}
SOURCES = sorted(path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts)


def part_of(module: str) -> str | None:
    """'mmdet_dino_r1.models.layers.fusion' -> 'models.layers'."""
    inner = module.removeprefix(f'{NAME}.')
    return next((part for part in MAY_IMPORT if f'{inner}.'.startswith(f'{part}.')), None)


def imported(path: Path, strings: bool = True) -> set[str]:
    """Absolute names of this package's modules that a file imports or, if so told, names."""
    module = '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
    package = module.removesuffix('.__init__') if path.stem == '__init__' else parent(module)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split('.')[: package.count('.') + 2 - node.level] if node.level else []
            source = '.'.join([*base, *([node.module] if node.module else [])])
            names |= {source, *(f'{source}.{alias.name}' for alias in node.names)}
        elif strings and isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= {node.value} if re.fullmatch(rf'{NAME}(\.\w+)+', node.value) else set()
    return {name for name in names if name.split('.')[0] == NAME}


def parent(module: str) -> str:
    return module.rpartition('.')[0]


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    here = part_of('.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts))
    if here is None:
        return  # the top level and the tools
    parts = {part for name in imported(path) if (part := part_of(name))}
    assert parts <= MAY_IMPORT[here] | {here}, path.relative_to(PACKAGE)


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_a_launch_imports_a_tool_and_only_its_tools_the_laboratory(path):
    inner = path.relative_to(PACKAGE)
    names = {name.removeprefix(f'{NAME}.') for name in imported(path, strings=False)}
    tools = {name for name in names if name.startswith('tools.')}
    if str(inner) in ('tools/train.py', 'tools/test.py'):
        assert {name.split('.')[1] for name in tools} == {'launch'}
        return
    assert not tools
    laboratory = {name for name in names if name.split('.')[0] in ('lab', 'testing')}
    if inner.parts[0] == 'tools' and laboratory:
        assert inner.stem in LABORATORY_TOOLS or laboratory <= {
            name for name in laboratory if name.startswith('testing')
        }


def test_the_arrows_would_catch_a_wrong_import(tmp_path, monkeypatch):
    layer = PACKAGE / 'models/layers/query_selector.py'
    assert {part_of(name) for name in imported(layer)} == {'models.layers', 'structures'}
    assert part_of(f'{NAME}.models.detectors.dino_r1') not in MAY_IMPORT['models.layers']
    upward = tmp_path / NAME / 'engine' / 'hook.py'
    upward.parent.mkdir(parents=True)
    upward.write_text("from .. import apis\nNAME = 'mmdet_dino_r1.lab.query_view.collect.view'\n")
    monkeypatch.setattr(f'{__name__}.PACKAGE', tmp_path / NAME)
    assert {part_of(name) for name in imported(upward)} == {'apis', 'lab', None}


def test_importing_the_package_imports_no_laboratory_plot():
    """pycocotools needs matplotlib; this package draws only when asked to."""
    script = (
        f'import sys, {NAME}; '
        f'print(*(name for name in sys.modules if name.startswith("{NAME}.")), sep="\\n")'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True
    )
    loaded = {part_of(name) for name in done.stdout.split() if name.startswith(NAME)}
    assert 'models.detectors' in loaded
    plots = [name for name in done.stdout.split() if re.search('plot|figure|curves', name)]
    assert not plots


def test_files_stay_small():
    long = {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 450}
    assert not long
