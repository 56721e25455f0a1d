"""Changes to a config (``--cfg-options``) that nothing would read, with the keys that are read.

A variable of a config is put into its places as the file is read; to set it afterwards has no
effect. Names: option = a dotted key as it was typed.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable

from mmengine.config import Config
from mmengine.runner import Runner

from ..utils.near_names import near_names, some
from .mmdet_2 import renamed
from .tree import walk

# Read by mmengine's Runner, mmdet's scripts or this package.
READ_AT_TOP = set(inspect.signature(Runner).parameters) - {'cfg'} | set(
    'activation_checkpointing auto_scale_lr check_data compile custom_imports '
    'efficient_conv_bn_eval find_unused_parameters model_wrapper_cfg runner_type strategy sync_bn '
    'tta_model'.split()
)
_READ = READ_AT_TOP | {'tta_pipeline'}  # which a variable `test_pipeline` is not meant to be


class WrongOption(ValueError):
    """A change that nothing would read, or that cannot be made; the message names the remedy."""


def merge_options(cfg: Config, options: dict) -> None:
    """Make changes (dotted key to value) in ``cfg``, as its files have it; else ``WrongOption``."""
    refuse_unread(cfg, options)
    values = dict(walk(cfg.to_dict(), ''))
    for option in options:  # mmengine would make a dict of it
        parent = re.split(r'\.\d+(?:\.|$)', option)[0]
        if parent != option and values.get(parent) is None:
            said = f'the config has no list {parent}; set it in the file.'
            raise WrongOption(f'--cfg-options {option}: {said}')
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError) as error:
        raise WrongOption(f'--cfg-options {" ".join(options)}: {error.args[0]}') from error


def refuse_unread(cfg: Config, options: Iterable[str]) -> None:
    """Raise ``WrongOption``, which names all ``options`` that nothing would read.

    ``cfg`` is as its files have it. A key that these set, but use nowhere, is left alone: code of
    the user's may read it.
    """
    unread = [option for option in options if option.split('.')[0] not in _READ]
    tree, used = cfg.to_dict(), _used_names(cfg.text) if unread else set()
    lines = []
    for option in unread:
        top = option.split('.')[0]
        places, is_copy = _places(option, tree)
        near = near_names(top, READ_AT_TOP, n=1, cutoff=0.8)
        if is_copy or top in used:
            said = 'is a variable, which was put into its places as the file was read; set '
            said += some(places, 4) or 'it in the file'
        elif top in tree:
            continue
        elif places or near:
            said = f'is read by nothing; set {some(places or near, 4)}'
        else:
            said = 'is read by nothing; if code of your own reads it, set it in the file as well'
        lines.append(f'  {option} {said}')
    if lines:
        raise WrongOption('\n'.join(['--cfg-options has no effect:', *lines]))


def _places(option: str, tree: dict) -> tuple[list[str], bool]:
    """Where to set what ``option`` means, and whether a variable's value is found there."""
    if today := renamed(option):
        return [today], False
    read = [item for top, part in tree.items() if top in _READ for item in walk(part, top)]
    parts = option.split('.')
    named = [key for key, _ in read if key.endswith(f'.{parts[-1]}')]
    values = dict(walk(tree[parts[0]], parts[0])) if parts[0] in tree else {}
    for depth, part in enumerate(parts, 1):
        value = values.get('.'.join(parts[:depth]))
        equal = [key for key, other in read if type(other) is type(value) and other == value]
        same = [key for key in equal if key.endswith(f'.{part}')]
        if _is_telling(value):
            same = same or equal
        if values and same:
            found = ['.'.join([key, *parts[depth:]]) for key in same]
            return list(dict.fromkeys(found + named if len(parts) == 1 else found)), True
    return named, False


def _is_telling(value: object) -> bool:
    """Whether two places that have this value have it from one another."""
    return bool(value) and value is not True and not (isinstance(value, int) and value < 100)


def _used_names(text: str) -> set[str]:
    """Names that the files of a config use in what they set, ``_base_.name`` among them."""
    # mmengine puts the path of each file above its text
    text = re.sub(r'^(/|[A-Z]:\\).*\.py$', '', text, flags=re.MULTILINE)
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:  # JSON or YAML, which have no variables
        return set()
    loads = [node for node in nodes if isinstance(getattr(node, 'ctx', None), ast.Load)]
    return {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in loads
        if isinstance(node, ast.Name) or getattr(getattr(node, 'value', 0), 'id', '') == '_base_'
    }
