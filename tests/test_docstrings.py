"""What no linter knows of a docstring; ruff holds the rest (D, D417 and DOC in pyproject.toml)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmdet_dino_r1'
SOURCES = sorted(path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts)
METHOD = r'models/(losses|layers|task_modules|dense_heads)/(?!__init__)'
CITED = r'arXiv|Algorithm \d|\bpaper\b|\bpublished\b|\bours\b|\bmmdet\b|Grounding DINO'
# '(n, 4)', 'scalar', 'the same shape'; (x1, y1, x2, y2) and (cx, cy, w, h) are no shapes
SHAPE = r'\((?!c?x1?, ?c?y1?)[\w.…+*/() ]+,[^()]*\)|\b[Ss]calar|\b[Tt]he same|shapes?\b|RGB'
BOXES = r'box|(?!has_)(\w+_)?b?boxes'
FORMAT = r'x1, y1, x2, y2|cx, cy, w, h|x, y, w(idth)?, h(eight)?|x and y of|\(x, y\)'


def problems_of(source: str, path: str = 'module.py') -> Iterator[str]:
    """All that is wrong with the docstrings of a module's public functions, one line each."""
    tree = ast.parse(source)
    top = ast.get_docstring(tree) or ''
    if re.match(METHOD, path) and not re.search(CITED, source):
        yield '1: names no source of the method'
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != '_']
    for owner in (tree, *classes):
        of_class = '' if owner is tree else ast.get_docstring(owner) or ''
        for node in (n for n in owner.body if isinstance(n, ast.FunctionDef)):
            if re.match('_(?!_(init|call)__)', node.name):
                continue
            text = of_class if node.name == '__init__' else ast.get_docstring(node) or ''
            args = [a for a in (*node.args.args, *node.args.kwonlyargs) if a.arg != 'self']
            wrong = []
            types = ' '.join(
                ast.unparse(t) for t in (*(a.annotation for a in args), node.returns) if t
            )
            types = re.sub(r'(dict|Mapping|Callable)\[[^\]]*', '', types)  # of no one shape
            if re.search(r'\b(Tensor|ndarray)\b', types) and not re.search(SHAPE, text + top):
                wrong.append('deals with tensors and gives no shape')
            if any(re.fullmatch(BOXES, a.arg) for a in args):
                if not re.search(FORMAT, text + of_class + top):
                    wrong.append('has boxes and does not tell their format')
            for name in [a.arg for a in args if node.name == '__init__' and a.arg[0] != '_']:
                if not re.search(rf'\b{name.removesuffix("s").replace("_", "[_ -]")}', text, re.I):
                    wrong.append(f'does not tell what {name} is')
            for error in raised(node) if node.name != 'main' else ():
                if error not in text:
                    wrong.append(f'raises {error} and does not say so')
            yield from (f'{node.lineno}: {node.name} {what}' for what in wrong)


def raised(node: ast.AST) -> Iterator[str]:
    """Names of ``raise X(...)``, those of inner functions aside."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            yield from re.findall(r'^[A-Z]\w+', ast.unparse(child.exc.func))
        if not isinstance(child, ast.FunctionDef):
            yield from raised(child)


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_docstrings_tell_what_they_must(path):
    inner = path.relative_to(PACKAGE).as_posix()
    found = list(problems_of(path.read_text(encoding='utf-8'), inner))
    assert not found, '\n'.join(['', *(f'mmdet_dino_r1/{inner}:{line}' for line in found)])


def test_what_is_not_told_is_found():
    body = 'def __init__(self, boxes: Tensor, depth: int):\n        raise KeyError(depth)'
    good = 'boxes (n, 4) (x1, y1, x2, y2), depth. KeyError: none.'
    source = f'class A:\n    """{good}"""\n    {body}\n'
    assert list(problems_of(source)) == []
    for lost in ('boxes', '(n, 4)', '(x1, y1, x2, y2)', 'depth', 'KeyError'):
        assert len(list(problems_of(source.replace(lost, '', 1)))) == 1
    assert list(problems_of('"""A loss."""', 'models/losses/a.py')) != []
    assert list(problems_of('"""A loss (ours)."""', 'models/losses/a.py')) == []
