"""What the docstrings of public modules, classes and functions must tell.

Checked on the syntax tree, so nothing is imported. Public is what has no leading underscore and
lies in no function, and ``__call__``. A module, class, function or method fails where

- it has no docstring;
- it, or a private function of the same file that it calls, says ``raise X(...)`` and X is not
  listed under ``Raises:`` (what a ``try`` around it catches does not count; for ``__init__`` and
  ``__post_init__`` the class's docstring answers);
- it takes or returns tensors or arrays and gives no shape: ``(bs, num_queries)``, 'scalar', 'the
  same shape'. With an ``Args:`` section each tensor's entry needs one. A paragraph at the top of
  the file that starts with 'Shapes:' and holds a shape serves all its functions;
- a parameter, or a field of a dataclass, is not named, in ``Args:`` or in words. What 'Names:' at
  the top of the file tells of needs no more; nor does the only parameter of a function, whose
  summary says what is done to it;
- ``Args:`` has an entry that is no parameter;
- boxes come in or go out and neither it nor the file says in which format;
- it lies where the method is implemented and the file names no source.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'mmdet_dino_r1'
SOURCES = sorted(path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts)

# Exempt from naming their arguments: hooks' methods, which have mmengine's, and what takes the
# command line.
CALLBACK = re.compile(r'(before|after)_(train|val|test|run|save|load)')
COMMAND_LINE = ('main', 'parse_args')

# One entry of a shape: a number, a name, an ellipsis, or a sum or product of these.
TERM = r'(?:\.\.\.|…|len\(\w+\)|\w+(?: ?[+*/] ?\w+)*)'
# Of these at least one and a comma; (x1, y1, x2, y2) and (cx, cy, w, h) are no shapes.
SHAPE = re.compile(rf'\((?!c?x1?, ?c?y1?){TERM},(?:\s*{TERM}(?:,\s*{TERM})*)?,?\s*\)')
SHAPE_IN_WORDS = re.compile(
    r'\bscalar|\bthe same\b|\b(same|their|any) shapes?\b|\bshapes? of\b|RGB (image|figure)', re.I
)
# Said of all arguments at once, instead of a list.
REFERS = re.compile(r'^Args( and returns)?: (see|as)\b|\barguments (are|as)\b', re.I | re.M)
BOX_FORMAT = re.compile(
    r'x1, y1, x2, y2|cx, cy, w, h|x, y, w(idth)?, h(eight)?|x and y of|\(x, y\)', re.I
)
BOXES = re.compile(r'b?box|(?!has_)(\w+_)?b?boxes')
# Where the method lives, and what names a source.
METHOD = ('models/losses', 'models/layers', 'models/task_modules', 'models/dense_heads')
CITED = re.compile(r'arXiv|Algorithm \d|\bpaper\b|\bpublished\b|\bours\b|\bmmdet\b|Grounding DINO')

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Helpers = dict[str, ast.FunctionDef]


def problems_of(source: str, path: str = 'module.py') -> list[str]:
    """All that is wrong with a module's docstrings, one line each, with line numbers."""
    tree = ast.parse(source)
    top = ast.get_docstring(tree) or ''
    found = [] if top else ['1: the module has no docstring']
    if any(path.startswith(part) for part in METHOD) and not path.endswith('__init__.py'):
        if not CITED.search('\n'.join(docstrings(tree))):
            found.append('1: names no source of the method')
    for node, owner in public(tree):
        name = f'{owner.name}.{node.name}' if owner else node.name
        if isinstance(node, ast.ClassDef):
            complaints = check_class(node, top, helpers_of(tree, node))
        else:
            complaints = check_function(node, owner, top, helpers_of(tree, owner))
        found += [f'{node.lineno}: {name} {complaint}' for complaint in complaints]
    return found


def docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | Definition):
            yield ast.get_docstring(node) or ''


def public(tree: ast.Module) -> Iterator[tuple[Definition, ast.ClassDef | None]]:
    """Each public class, function and method, with the class it belongs to."""
    for node in tree.body:
        if isinstance(node, Definition) and is_public(node):
            yield node, None
            if isinstance(node, ast.ClassDef):
                inner = [item for item in node.body if isinstance(item, Definition)]
                yield from ((item, node) for item in inner if is_public(item))


def is_public(node: Definition) -> bool:
    return not node.name.startswith('_') or node.name == '__call__'


def check_class(node: ast.ClassDef, top: str, helpers: Helpers) -> Iterator[str]:
    text = ast.get_docstring(node)
    if not text:
        yield 'has no docstring'
        return
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name in ('__init__', '__post_init__'):
            yield from check_raises(method, text, helpers)
        if isinstance(method, ast.FunctionDef) and method.name == '__init__':
            yield from check_parameters(method, text, top, is_method=True)
    fields = [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    for field in fields:
        if not field.startswith('_') and not is_named(field, text):
            yield f'does not name the field {field}'
    if any(BOXES.fullmatch(field) for field in fields) and not BOX_FORMAT.search(text + top):
        yield 'has boxes and does not tell their format'


def check_function(
    node: ast.FunctionDef, owner: ast.ClassDef | None, top: str, helpers: Helpers
) -> Iterator[str]:
    text = ast.get_docstring(node)
    if not text:
        yield 'has no docstring'
        return
    yield from check_raises(node, text, helpers)
    if (owner and CALLBACK.match(node.name)) or (not owner and node.name in COMMAND_LINE):
        return
    yield from check_parameters(node, text, top, is_method=owner is not None)
    yield from check_shapes(node, text, top)
    boxes = [p.arg for p in parameters(node, owner is not None) if BOXES.fullmatch(p.arg)]
    of_class = ast.get_docstring(owner) or '' if owner else ''
    if boxes and not BOX_FORMAT.search(text + of_class + top):
        yield f'takes {", ".join(boxes)} and does not tell their format'


def check_raises(node: ast.FunctionDef, text: str, helpers: Helpers) -> Iterator[str]:
    told = section(text, 'Raises')
    for name in sorted(raised(node, helpers)):
        if name not in told:
            yield f'raises {name} and does not say so'


def check_parameters(node: ast.FunctionDef, text: str, top: str, is_method: bool) -> Iterator[str]:
    taken = [parameter.arg for parameter in parameters(node, is_method)]
    if REFERS.search(text):
        return
    listed = section(text, 'Args')
    variable = [arg.arg for arg in (node.args.vararg, node.args.kwarg) if arg]
    for name in listed:
        if name not in taken + variable:
            yield f'lists {name}, which is no parameter'
    for name in taken:
        told = f'{text} {legend(top, "Names")}'
        if name not in listed and len(taken) > 1 and not is_named(name, told):
            yield f'does not name the parameter {name}'


def check_shapes(node: ast.FunctionDef, text: str, top: str) -> Iterator[str]:
    if SHAPE.search(legend(top, 'Shapes')):
        return
    arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    tensors = [a.arg for a in arguments if a.annotation and holds_tensor(a.annotation)]
    if not tensors and not (node.returns and holds_tensor(node.returns)):
        return
    if not gives_shape(text):
        yield 'deals with tensors and gives no shape'
        return
    for name, entry in section(text, 'Args').items():
        if name in tensors and not gives_shape(entry):
            yield f'gives no shape of {name}'


def legend(top: str, title: str) -> str:
    found = re.search(rf'^{title}:.*?(?=\n\n|\Z)', top, re.M | re.S)
    return found[0] if found else ''


def gives_shape(text: str) -> bool:
    return bool(SHAPE.search(text) or SHAPE_IN_WORDS.search(text))


def parameters(node: ast.FunctionDef, is_method: bool) -> list[ast.arg]:
    args = node.args.posonlyargs + node.args.args
    static = any(isinstance(d, ast.Name) and d.id == 'staticmethod' for d in node.decorator_list)
    args = args[1:] if is_method and not static else args
    named = args + node.args.kwonlyargs
    # ctx is what autograd gives a function of its own
    return [arg for arg in named if arg.arg != 'ctx' and not arg.arg.startswith('_')]


def is_named(name: str, text: str) -> bool:
    """Whether a docstring has a name, as it is or as words: ``class_names``, 'class name'."""
    words = name.removesuffix('s').split('_')
    return bool(re.search(rf'\b{r"[ _-]".join(words)}(s|es)?\b', ' '.join(text.split()), re.I))


def holds_tensor(annotation: ast.expr) -> bool:
    """Whether tensors or arrays are in it; a dict of them has no shape."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode='eval').body
    if isinstance(annotation, ast.Subscript):
        of = annotation.value
        if isinstance(of, ast.Name) and of.id in ('dict', 'Mapping', 'Callable'):
            return False
    if isinstance(annotation, ast.Name | ast.Attribute):
        return ast.unparse(annotation).split('.')[-1] in ('Tensor', 'ndarray')
    return any(holds_tensor(child) for child in ast.iter_child_nodes(annotation))


def section(text: str, title: str) -> dict[str, str]:
    """Entries of ``Args:`` and the like by name; '(type)' after a name is left out."""
    body = re.search(rf'^{title}:\n((?:[ \t]+.*\n?|\n)*)', text, re.M)
    entries: dict[str, str] = {}
    for line in body[1].splitlines() if body else ():
        start = re.match(r' {4}(?=\S)(.+?)(?: \([^)]*\))?:(?=\s|$)(.*)', line)
        if start:
            names = [name.strip('`*') for name in start[1].split(', ')]
            entries |= dict.fromkeys(names, start[2])
        elif entries:
            for name in names:
                entries[name] += f'\n{line}'
    return entries


def raised(node: ast.AST, helpers: Helpers, caught: frozenset[str] = frozenset()) -> set[str]:
    """Classes of ``raise X(...)`` that leave a function, those of its private helpers included."""
    names = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition | ast.Lambda):
            continue  # what an inner function raises is not raised here
        if isinstance(child, ast.Try):
            types = [handler.type for handler in child.handlers if handler.type]
            here = {n.id for t in types for n in ast.walk(t) if isinstance(n, ast.Name)}
            names |= raised(ast.Module(child.body, []), helpers, caught | here)
            rest = [*child.handlers, *child.orelse, *child.finalbody]
            names |= raised(ast.Module(rest, []), helpers, caught)
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            names.add(name_of(child.exc.func if isinstance(child.exc, ast.Call) else child.exc))
        if isinstance(child, ast.Call) and name_of(child.func) in helpers:
            helper = name_of(child.func)
            others = {name: body for name, body in helpers.items() if name != helper}
            names |= raised(helpers[helper], others, caught)
        names |= raised(child, helpers, caught)
    # a name in lower case is a caught exception that is raised again
    return {name for name in names if name[:1].isupper() and not is_caught(name, caught)}


def name_of(node: ast.expr) -> str:
    """'ValueError', 'ArgumentTypeError' of a module, '_helper', '_helper' of self; else ''."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ''


def helpers_of(tree: ast.Module, owner: ast.ClassDef | None) -> Helpers:
    """The private functions of a module and of a class, by name."""
    nodes = [*tree.body, *(owner.body if owner else ())]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return {node.name: node for node in functions if re.match('_(?!_)', node.name)}


def is_caught(name: str, handled: frozenset[str]) -> bool:
    bases = getattr(getattr(builtins, name, None), '__mro__', ())
    return name in handled or any(base.__name__ in handled for base in bases)


@pytest.mark.parametrize('path', SOURCES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_docstrings_tell_what_they_must(path):
    inner = path.relative_to(PACKAGE).as_posix()
    found = problems_of(path.read_text(encoding='utf-8'), inner)
    assert not found, '\n'.join(['', *(f'mmdet_dino_r1/{inner}:{line}' for line in found)])


GOOD = '''
"""A module."""


class Box:
    """A box.

    Args:
        corners: (4,) float.

    Raises:
        ValueError: it is empty.
    """

    def __init__(self, corners: Tensor) -> None:
        _check(corners)

    def scaled(self, factor: float) -> Tensor:
        """(4,) the corners, scaled."""
        return self.corners * factor


def union(boxes: Tensor, weights: Tensor | None = None) -> Tensor:
    """Smallest box around all.

    Args:
        boxes: (n, 4) (x1, y1, x2, y2).
        weights: (n,), or None.
    """
    try:
        raise FileNotFoundError
    except OSError:
        return boxes


def _check(corners):
    if not corners.any():
        raise ValueError('empty')
'''


def test_what_is_told_passes():
    assert problems_of(GOOD) == []


@pytest.mark.parametrize(
    ('old', 'new', 'complaint'),
    [
        ('"""A module."""', '', 'the module has no docstring'),
        ('        """(4,) the corners, scaled."""\n', '', 'Box.scaled has no docstring'),
        ('    """A box.', '    x = """A box.', 'Box has no docstring'),
        ('        ValueError: it', '        KeyError: it', 'Box raises ValueError'),
        ('except OSError', 'except KeyError', 'union raises FileNotFoundError'),
        ('(4,) the corners', 'The corners', 'Box.scaled deals with tensors and gives no shape'),
        ('weights: (n,), or None', 'weights: or None', 'union gives no shape of weights'),
        (
            '        weights: (n,)',
            '        masses: (n,)',
            'union does not name the parameter',
        ),
        ('    weights: (n,)', '    masses: (n,)', 'union lists masses'),
        ('(self, corners: Tensor)', '(self, corners, b)', 'Box does not name the parameter b'),
        (' (x1, y1, x2, y2)', '', 'union takes boxes and does not tell their format'),
    ],
)
def test_what_is_not_told_fails(old, new, complaint):
    assert old in GOOD
    assert any(complaint in line for line in problems_of(GOOD.replace(old, new)))


def test_the_method_needs_a_source():
    assert problems_of(GOOD, 'models/losses/box.py') == ['1: names no source of the method']
    cited = GOOD.replace('A module', 'A module (arXiv 2505.24025, Section 3)')
    assert problems_of(cited, 'models/losses/box.py') == []


def test_a_legend_gives_the_shapes():
    told = GOOD.replace('(4,) the corners', 'The corners')
    assert problems_of(told.replace('A module.', 'A module.\n\nShapes: corners (4,).\n')) == []
    assert problems_of(told.replace('A module.', 'A module.\n\nShapes: n.\n\nOn (4,).\n')) != []


def test_a_legend_names_parameters():
    unnamed = GOOD.replace('        weights: (n,), or None.\n', '')
    assert problems_of(unnamed) != []
    assert problems_of(unnamed.replace('A module.', 'A module.\n\nNames: weight = ...\n')) == []


@pytest.mark.parametrize(
    ('text', 'is_shape'),
    [
        ('(bs, num_queries)', True),
        ('(n,) long', True),
        ('``(n, )``', True),
        ('(num_layers + 1, bs, 4)', True),
        ('(..., dim)', True),
        ('a scalar', True),
        ('(x1, y1, x2, y2)', False),
        ('(cx, cy, w, h)', False),
        ('(see above, where it is told)', False),
        ('(once)', False),
    ],
)
def test_what_counts_as_a_shape(text, is_shape):
    assert gives_shape(text) is is_shape
