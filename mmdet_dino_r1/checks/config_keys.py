"""Finds keys of a config that nothing takes, before anything is built.

A dict with a ``type`` is held against the signature of the class (or function) of that name, and
of its parents as far as ``**kwargs`` reaches them. Some dicts without ``type`` have a known taker
too. Where more may be taken than can be known, only what nearly is a known key is called wrong.

Names: cfg, args, stage as of all checks (``preflight.py``).
"""

from __future__ import annotations

import inspect
import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import cache

from mmdet.models.layers import SinePositionalEncoding
from mmdet.utils import register_all_modules
from mmengine import runner
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from ..models.layers import DenoisingQueries, PromptDecoder, PromptFusionEncoder
from ..utils.near_names import near_names
from .config_tree import registries

# What registries and those who call them take out of a dict before the class sees it: hooks,
# schedulers, optimisers, weight initializers, members of a group, norms, convolutions and losses.
_TAKEN_BEFORE = frozenset(
    'type _scope_ _delete_ init_cfg priority convert_to_iter_based optimizer constructor '
    'paramwise_cfg override name layer prompts requires_grad fallback_on_stride scale_factor '
    'bg_cls_weight'.split()
)
# Who takes a dict that has no `type`: functions whose parameters its keys are, or the keys.
_TAKERS: dict[str, tuple[Callable | str, ...]] = {
    'train_dataloader': (DataLoader, 'num_batch_per_epoch'),
    'val_dataloader': (DataLoader, 'num_batch_per_epoch'),
    'test_dataloader': (DataLoader, 'num_batch_per_epoch'),
    'optim_wrapper': (OptimWrapper,),
    'train_cfg': (runner.EpochBasedTrainLoop, runner.IterBasedTrainLoop, 'by_epoch'),
    'val_cfg': (runner.ValLoop,),
    'test_cfg': (runner.TestLoop,),
    'log_processor': (runner.LogProcessor,),
    'randomness': (Runner.set_randomness,),
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'env_cfg.mp_cfg': (set_multi_processing,),
    'auto_scale_lr': ('enable', 'base_batch_size'),
    'DINOR1.encoder': (PromptFusionEncoder,),
    'DINOR1.decoder': (PromptDecoder,),
    'DINOR1.positional_encoding': (SinePositionalEncoding,),
    'DINOR1.dn_cfg': (DenoisingQueries,),
    'DINOR1.dn_cfg.group_cfg': ('dynamic', 'num_groups', 'num_dn_queries'),
    'DINOR1.train_cfg': ('assigner',),
    'DINOR1.test_cfg': ('max_per_img', 'chunk_size', 'max_per_chunk', 'nms'),
}
# Read by mmengine's Runner, mmdet's scripts or this package, beyond the Runner's own arguments.
_AT_TOP = frozenset(
    'activation_checkpointing auto_scale_lr check_data compile custom_imports '
    'efficient_conv_bn_eval find_unused_parameters model_wrapper_cfg runner_type sync_bn '
    'tta_model'.split()
)
Wrong = tuple[str, str]  # a key as for --cfg-options, and what was probably meant


def misspelt_keys(cfg: Config) -> list[Wrong]:
    """Every key that nothing takes, with what was probably meant."""
    register_all_modules(init_default_scope=False)
    tree = cfg.to_dict()
    own = _AT_TOP | set(inspect.signature(Runner).parameters) - {'cfg'}
    found = list(_wrong(tree, '', 'the top level', own, False))  # any other may be a variable
    hooks = tree.get('default_hooks') or {}
    typed = {name for name, hook in hooks.items() if not isinstance(hook, dict) or 'type' in hook}
    found += _wrong(hooks, 'default_hooks', 'default_hooks', typed, True)
    return found + [item for key, value in tree.items() for item in _below(value, key, key)]


def explain_misspelt(cfg: Config, args: Namespace, stage: str) -> str | None:
    """What :func:`misspelt_keys` finds, in one message."""
    found = misspelt_keys(cfg)
    return report_misspelt(found, args.config) if found else None


def report_misspelt(found: list[Wrong], config: str) -> str:
    """All that were found in a ``config`` of that name, in one message."""
    width = max(len(key) for key, _ in found)
    first = f'nothing was started: {config}, or --cfg-options, sets what nothing reads.'
    return '\n'.join([first, *(f'  {key:{width}}  {said}' for key, said in found)])


def _below(node: object, key: str, path: str) -> Iterator[Wrong]:
    """Misspelt keys of ``node``, at ``key``, and in it; ``path`` is its key in ``_TAKERS``."""
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from _below(child, f'{key}.{index}', f'{path}.{index}')
    if not isinstance(node, dict):
        return
    kind = node.get('type')
    if kind is None:
        builders = _TAKERS.get(path, ())
    elif callable(kind):
        builders = [kind]
    else:
        tables = [registry.module_dict for registry in registries()]
        builders = [table[name] for table in tables if (name := kind.rpartition('.')[2]) in table]
    if builders:
        taken = [_parameters(b) if callable(b) else ({b}, True) for b in builders]
        known = frozenset().union(*(names for names, _ in taken))
        name = key if kind is None else getattr(kind, '__name__', kind)
        yield from _wrong(node, key, name, known, all(is_all for _, is_all in taken))
    if kind == 'DatasetGroup':  # what members share is checked with each
        common, members = node.get('common') or {}, node.get('datasets') or {}
        whole = {name: common | member for name, member in members.items() if member}
        node = dict(node, common=None, datasets=whole)
    path = kind if kind == 'DINOR1' else path
    for child, value in node.items():
        yield from _below(value, f'{key}.{child}', f'{path}.{child}')


def _wrong(node: dict, key: str, taker: str, known: set[str], is_all: bool) -> Iterator[Wrong]:
    """Keys of ``node`` that are not known or, unless these are all, that nearly are."""
    for child in node:
        if child in known | _TAKEN_BEFORE:
            continue
        if not is_all:
            # `mode` is not meant to be `model`, nor `val_dataloader2` `val_dataloader` beside it
            near = near_names(child, [name for name in known if len(name) > 5], 1, cutoff=0.85)
            if not near or (near[0] in node and child.startswith(near[0])):
                continue
        near = near_names(child, known | _TAKEN_BEFORE, n=1, cutoff=0.6)
        hint = f'did you mean {near[0]}?' if near else f'it takes {", ".join(sorted(known))}'
        yield f'{key}.{child}'.lstrip('.'), f'not a key of {taker}; {hint}'


@cache
def _parameters(builder: Callable) -> tuple[frozenset[str], bool]:
    """What a class or function takes by keyword, as far as can be known, and whether it is all."""
    chain, known = [builder], set()
    if inspect.isclass(builder):
        chain = [vars(cls)['__init__'] for cls in builder.__mro__ if '__init__' in vars(cls)]
    for function in chain:
        if hasattr(function, '__wrapped__'):  # a decorator may take other keys
            return frozenset(), False
        parameters = inspect.signature(function).parameters.values()
        known |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        keyword = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        if keyword is None or (read := _read_on_the_way(function, keyword)) is None:
            break
        known |= read
    return frozenset(known) - {'self'}, keyword is None


def _read_on_the_way(init: Callable, keyword: str) -> set[str] | None:
    """Names that are read from ``**kwargs``; None unless the rest goes to the next class alone."""
    try:
        source = inspect.getsource(init)
    except (OSError, TypeError):
        return None
    read = re.findall(rf"\b{keyword}(?:\.\w+\(|\[)'(\w+)'", source)  # kwargs['a'], kwargs.pop('a')
    read += re.findall(rf"'(\w+)' (?:not )?in {keyword}\b", source)
    owner = init.__qualname__.split('.')[-2:][0]
    up = rf'super\((?:{owner}, self)?\)\.__init__\((?:[^()]|\([^()]*\))*\*\*{keyword}\b'
    ups, uses = len(re.findall(up, source)), len(re.findall(rf'\b{keyword}\b', source))
    return set(read) if ups and uses == 1 + ups + len(read) else None
