"""Finds keys of a config that nothing takes, before anything is built.

A dict with a ``type`` is held against the signature of what has that name, and of its parents as
far as ``**kwargs`` leads to them. Some dicts without ``type`` have a known taker, too. Where more
may be taken than can be known, only what nearly is a known key is called wrong.
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

from ..config import mmdet_2
from ..config.options import READ_AT_TOP
from ..config.tree import registries, type_name
from ..engine.hooks.prompt_bank_hook import BANK_KEYS
from ..models.dense_heads.negative_prompts import NegativesRule
from ..models.layers import DenoisingQueries, PromptDecoder, PromptFusionEncoder
from ..utils.near_names import near_names

# What registries and those who call them take out of a dict before the class sees it: hooks,
# schedulers, optimisers, weight initializers, members of a group, norms, convolutions and losses.
_TAKEN_BEFORE = frozenset(
    'type _scope_ _delete_ init_cfg priority convert_to_iter_based optimizer constructor '
    'paramwise_cfg override name layer prompts requires_grad fallback_on_stride scale_factor '
    'bg_cls_weight'.split()
)
_MORE = '...'  # other keys may be taken, too
# Who takes a dict that has no `type`: functions whose parameters its keys are, or the keys.
_TAKERS: dict[str, tuple[Callable | str, ...]] = {
    'train_dataloader': (DataLoader, 'num_batch_per_epoch'),
    'val_dataloader': (DataLoader, 'num_batch_per_epoch'),
    'test_dataloader': (DataLoader, 'num_batch_per_epoch'),
    'optim_wrapper': (OptimWrapper,),
    'optim_wrapper.paramwise_cfg': ('custom_keys', 'norm_decay_mult', 'bypass_duplicate', _MORE),
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
    'DINOR1.test_cfg': ('max_per_img', 'chunk_size', 'max_per_chunk', 'nms', 'negatives'),
    'DINOR1.test_cfg.negatives': (NegativesRule,),
    'PromptBankHook.bank': tuple(BANK_KEYS),
    'CocoDataset.filter_cfg': ('filter_empty_gt', 'min_size', _MORE),
    'CocoJsonDataset.filter_cfg': ('filter_empty_gt', 'min_size', _MORE),
}
Wrong = tuple[str, str]  # a key as for --cfg-options, and what was probably meant


def misspelt_keys(cfg: Config) -> list[Wrong]:
    """Every key that nothing takes, with what was probably meant."""
    register_all_modules(init_default_scope=False)
    tree = cfg.to_dict()
    # any other may be a variable
    found = list(_wrong(tree, '', 'the top level', READ_AT_TOP, False))
    hooks = tree.get('default_hooks') or {}
    typed = {name for name, hook in hooks.items() if not isinstance(hook, dict) or 'type' in hook}
    found += _wrong(hooks, 'default_hooks', 'default_hooks', typed, True)
    return found + [item for key, value in tree.items() for item in _below(value, key, key)]


def explain_misspelt(cfg: Config, args: Namespace, stage: str) -> str | None:
    """What :func:`misspelt_keys` finds, in one message."""
    return report_misspelt(misspelt_keys(cfg), args.config)


def report_misspelt(found: list[Wrong], config: str) -> str | None:
    """All that were found in a ``config`` of that name, in one message; None for none."""
    if not found:
        return None
    width = max(len(key) for key, _ in found)
    first = f'nothing was started: {config}, or --cfg-options, sets what nothing reads.'
    return '\n'.join([first, *(f'  {key:{width}}  {said}' for key, said in found)])


def _below(node: object, key: str, path: str) -> Iterator[Wrong]:
    """Misspelt keys of ``node``, at ``key``, and in it; ``path`` is its key in ``_TAKERS``."""
    if isinstance(node, (list, tuple)):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    kind, name = node.get('type'), type_name(node)
    if kind is None:
        takers = _TAKERS.get(path, ())
    elif callable(kind):
        takers = (kind,)
    else:
        tables = [registry.module_dict for registry in registries()]
        takers = [table[name] for table in tables if name in table]
    if takers:
        taken = [_parameters(t) if callable(t) else ({t}, t != _MORE) for t in takers]
        known = set().union(*(names for names, _ in taken))
        yield from _wrong(node, key, name or key, known, all(is_all for _, is_all in taken))
    if kind == 'DatasetGroup':  # what members share is checked with each
        common, members = node.get('common') or {}, node.get('datasets') or {}
        whole = {name: common | member for name, member in members.items() if member}
        node = dict(node, common=None, datasets=whole)
    path = name if any(known.startswith(f'{name}.') for known in _TAKERS) else path
    for child, value in node.items():
        yield from _below(value, f'{key}.{child}', f'{path}.{child}')


def _wrong(node: dict, key: str, taker: str, known: set[str], is_all: bool) -> Iterator[Wrong]:
    """Keys of ``node`` that are not known or, unless these are all, that nearly are."""
    # where more may be taken, `mode` is not meant to be `model`
    pool = known | _TAKEN_BEFORE if is_all else {name for name in known if len(name) > 5}
    for child in node:
        if child in known | _TAKEN_BEFORE:
            continue
        near = near_names(child, pool, n=1, cutoff=0.6 if is_all else 0.85)
        # nor `val_dataloader2` to be `val_dataloader`, beside it
        if is_all or (near and not (near[0] in node and child.startswith(near[0]))):
            near = [mmdet_2.KEYS[child]] if child in mmdet_2.KEYS else near
            hint = f'did you mean {near[0]}?' if near else f'it takes {", ".join(sorted(known))}'
            yield f'{key}.{child}'.lstrip('.'), f'not a key of {taker}; {hint}'


@cache
def _parameters(taker: Callable) -> tuple[set[str], bool]:
    """What a class, with its parents, or a function takes by name, and whether that is all."""
    chain, known, is_all = [taker], set(), True
    if inspect.isclass(taker):
        chain = [vars(cls)['__init__'] for cls in taker.__mro__[:-1] if '__init__' in vars(cls)]
    for function in chain:
        parameters = inspect.signature(function).parameters.values()
        known |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        is_all = is_all and not hasattr(function, '__wrapped__')  # a decorator may take other keys
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            return known - {'self'}, is_all
        is_all = is_all and _goes_up(function)
    return known - {'self'}, False


def _goes_up(init: Callable) -> bool:
    """Whether all that ``**kwargs`` does is to go to the parent's ``__init__``."""
    try:
        source = inspect.getsource(init)
    except (OSError, TypeError):
        return False
    is_up = re.search(r'super\(\)\.__init__\(.*?\*\*kwargs', source, re.DOTALL)
    return bool(is_up) and len(re.findall(r'\bkwargs\b', source)) == 2
