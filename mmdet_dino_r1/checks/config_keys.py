"""Finds keys of a config that nothing takes, before anything is built.

A dict with a ``type`` is held against the signature of the class (or function) of that name, and
of its parents as far as ``**kwargs`` reaches them. Some dicts without ``type`` have a known taker
too: loaders, loops, the optimiser's wrapper, the environment, parts of ``DINOR1``. Where it cannot
be known what is taken, anything is.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

import mmengine.registry
from mmdet.models.layers import SinePositionalEncoding
from mmdet.utils import register_all_modules
from mmengine import runner
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from ..models.layers import DenoisingQueries, PromptDecoder, PromptFusionEncoder

# What registries and those who call them take out of a dict before the class sees it.
_RESERVED = {'type', '_scope_', '_delete_', 'init_cfg'}
_TAKEN_BEFORE = {
    'hook': {'priority'},
    'parameter scheduler': {'convert_to_iter_based'},
    'optim_wrapper': {'optimizer', 'constructor', 'paramwise_cfg'},
    'dataset': {'prompts'},  # of a member of a DatasetGroup
    'weight initializer': {'override', 'name', 'layer'},
    # of norm_cfg, conv_cfg, upsample_cfg and loss_cls
    'model': {'requires_grad', 'fallback_on_stride', 'scale_factor', 'bg_cls_weight'},
}
_LOADER = {
    'dataset',
    'sampler',
    'batch_sampler',
    'num_batch_per_epoch',
    'worker_init_fn',
    'collate_fn',
}
# Who takes a dict that has no `type`: functions whose parameters they are, and further keys.
_TAKERS = {
    **dict.fromkeys(
        ('train_dataloader', 'val_dataloader', 'test_dataloader'), ([DataLoader], _LOADER)
    ),
    'optim_wrapper': ([OptimWrapper], _TAKEN_BEFORE['optim_wrapper']),
    'train_cfg': ([runner.EpochBasedTrainLoop, runner.IterBasedTrainLoop], {'by_epoch'}),
    'val_cfg': ([runner.ValLoop], set()),
    'test_cfg': ([runner.TestLoop], set()),
    'log_processor': ([runner.LogProcessor], set()),
    'randomness': ([Runner.set_randomness], set()),
    'env_cfg': ([], {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}),
    'env_cfg.mp_cfg': ([set_multi_processing], set()),
    'auto_scale_lr': ([], {'enable', 'base_batch_size'}),
}
_TAKERS_IN_DINO_R1 = {
    'encoder': ([PromptFusionEncoder], set()),
    'decoder': ([PromptDecoder], set()),
    'positional_encoding': ([SinePositionalEncoding], set()),
    'dn_cfg': ([DenoisingQueries], set()),
    'dn_cfg.group_cfg': ([], {'dynamic', 'num_groups', 'num_dn_queries'}),
    'train_cfg': ([], {'assigner'}),
    'test_cfg': ([], {'max_per_img', 'chunk_size', 'max_per_chunk', 'nms'}),
}
# Read by mmengine's Runner, mmdet's scripts or this package, beyond the Runner's own arguments.
_AT_TOP = {
    'activation_checkpointing',
    'auto_scale_lr',
    'check_data',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
}
# Whose ``**kwargs`` go to a function instead of a parent.
_KEYWORDS_GO_TO = {CheckpointHook: Runner.save_checkpoint}


@dataclass(frozen=True)
class Misspelt:
    """A key that nothing takes.

    Attributes:
        place: dotted, as for ``--cfg-options``: 'model.backbone.depht'.
        taker: what should have taken it: 'ResNet'.
        known: the keys that it takes.
    """

    place: str
    taker: str
    known: frozenset[str]

    def __str__(self) -> str:
        near = get_close_matches(self.place.rpartition('.')[2], sorted(self.known), n=1)
        hint = f'did you mean {near[0]}?' if near else f'it takes {", ".join(sorted(self.known))}'
        return f'not a key of {self.taker}; {hint}'


def misspelt_keys(cfg: Config) -> list[Misspelt]:
    """Every key that nothing takes, in the config's order.

    Args:
        cfg: the config, ``--cfg-options`` merged.
    """
    register_all_modules(init_default_scope=False)
    tree = cfg.to_dict()
    found = list(_at_top(tree))
    for key, value in tree.items():
        found += _below(value, key)
    return found


def report_misspelt(found: list[Misspelt], config: str) -> str:
    """All of them in one message.

    Args:
        found: what :func:`misspelt_keys` returned.
        config: name of the file.
    """
    width = max(len(item.place) for item in found)
    return '\n'.join(
        [
            f'nothing was started: {config}, or --cfg-options, sets what nothing reads.',
            *(f'  {item.place:{width}}  {item}' for item in found),
        ]
    )


def _at_top(tree: dict) -> Iterator[Misspelt]:
    """What nearly is a known key: at the top, any other may be a variable."""
    known = _AT_TOP | set(inspect.signature(Runner).parameters) - {'cfg'}
    long = sorted(name for name in known if len(name) > 5)  # `mode` is not meant to be `model`
    for key in tree.keys() - known:
        near = get_close_matches(key, long, n=1, cutoff=0.85)
        # a variable such as `val_dataloader2`, beside the key itself, is none
        if near and not key.startswith(tuple(set(near) & tree.keys())):
            yield Misspelt(key, 'the top level', frozenset(near))
    hooks = tree.get('default_hooks') or {}
    typed = {name for name, hook in hooks.items() if not isinstance(hook, dict) or 'type' in hook}
    for name in hooks.keys() - typed:  # the first of a name brings its type
        yield Misspelt(f'default_hooks.{name}', 'default_hooks', frozenset(typed))


def _below(node: object, key: str, takers: dict = _TAKERS, path: str | None = None) -> Iterator:
    """Misspelt keys of ``node`` and in it.

    Args:
        node: a part of the config.
        key: its dotted key.
        takers: who takes dicts without ``type``, by dotted key in the whole that they belong to.
        path: ``node``'s dotted key in that whole; None: ``key``.
    """
    path = key if path is None else path
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from _below(child, f'{key}.{index}', takers, f'{path}.{index}')
    if not isinstance(node, dict):
        return
    kind = node.get('type')
    if kind is not None:
        name, known = getattr(kind, '__name__', kind), _keys_of_type(kind)
    else:
        name, known = key, _keys_without_type(*takers[path]) if path in takers else None
    if known is not None:
        for child in node:
            if child not in known | _RESERVED:
                yield Misspelt(f'{key}.{child}', name, known)
    if kind == 'DatasetGroup':  # what members share is checked with each
        common = node.get('common') or {}
        members = node.get('datasets') or {}
        whole = {name: common | member for name, member in members.items() if member}
        node = dict(node, common=None, datasets=whole)
    for child, value in node.items():
        if kind == 'DINOR1':
            yield from _below(value, f'{key}.{child}', _TAKERS_IN_DINO_R1, child)
        else:
            yield from _below(value, f'{key}.{child}', takers, f'{path}.{child}')


def _keys_without_type(builders: list[Callable], more: set[str]) -> frozenset[str] | None:
    return _union([_parameters(builder) for builder in builders] + [frozenset(more)])


def _keys_of_type(kind: str | Callable) -> frozenset[str] | None:
    """What the classes of that name take, all together; None where it cannot be known."""
    if callable(kind):
        return _union([_parameters(kind), *map(frozenset, _TAKEN_BEFORE.values())])
    found = [
        _union([_parameters(builder), frozenset(_TAKEN_BEFORE.get(registry.name, ()))])
        for registry in _registries()
        if (builder := registry.module_dict.get(kind.rpartition('.')[2])) is not None
    ]
    return _union(found) if found else None


def _union(sets: list[frozenset[str] | None]) -> frozenset[str] | None:
    return None if None in sets else frozenset().union(*sets)


def _registries() -> list[Registry]:
    """All of mmengine's and their children."""
    waiting = [root for root in vars(mmengine.registry).values() if isinstance(root, Registry)]
    found = []
    while waiting:
        found.append(waiting.pop())
        waiting += found[-1].children.values()
    return found


@cache
def _parameters(builder: Callable) -> frozenset[str] | None:
    """Names that a class or function takes by keyword; None: any, or unknown."""
    if not inspect.isclass(builder):
        names, keyword = _named(builder)
        return None if keyword else names
    known = frozenset()
    for parent in builder.__mro__:
        init = parent.__dict__.get('__init__')
        if init is None:
            continue
        if parent is object or hasattr(init, '__wrapped__'):  # a decorator may rename keys
            return None
        names, keyword = _named(init)
        known |= names
        if parent in _KEYWORDS_GO_TO:
            return known | _named(_KEYWORDS_GO_TO[parent])[0]
        if keyword is None:
            return known
        read = _read_on_the_way(init, keyword, parent.__name__)
        if read is None:
            return None
        known |= read
    return None


def _named(function: Callable) -> tuple[frozenset[str], str | None]:
    """Names of the parameters, and the name of ``**kwargs`` or None."""
    parameters = inspect.signature(function).parameters.values()
    keyword = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    starred = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return frozenset(p.name for p in parameters if p.kind not in starred) - {'self'}, keyword


def _read_on_the_way(init: Callable, keyword: str, owner: str) -> frozenset[str] | None:
    """Names that ``owner``'s ``__init__`` reads from its ``**kwargs``.

    None where all else does not go to the next class alone. ``super().__init__(**kwargs)``,
    ``kwargs['name']``, ``kwargs.pop('name')`` and the like are understood.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):
        return None

    def is_kwargs(node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id == keyword

    ups = ('super().__init__', f'super({owner}, self).__init__')
    uses = sum(is_kwargs(node) for node in ast.walk(tree))
    read, understood, goes_up = set(), 0, False
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Subscript) and is_kwargs(node.value):
            name = node.slice
        elif isinstance(node, ast.Compare) and any(map(is_kwargs, node.comparators)):
            name = node.left
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if is_kwargs(node.func.value) and node.args:
                name = node.args[0]
            elif ast.unparse(node.func) in ups:
                passed = sum(k.arg is None and is_kwargs(k.value) for k in node.keywords)
                understood += passed
                goes_up |= passed > 0
        if isinstance(name, ast.Constant):
            understood += 1
            read.add(name.value)
    return frozenset(read) if goes_up and understood == uses else None
