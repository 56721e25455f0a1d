"""Which exemplars a config asks for; hook, tools and Python calls all read it here."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from mmdet.registry import DATASETS, MODELS
from mmengine.config import ConfigDict
from torch.utils.data import Dataset

from ..utils.near_names import quote_with_near
from .loading import image_pipeline
from .tested_sets import classes_without_boxes, exemplar_source, members_of
from .tree import type_name

# of PromptBankHook's `bank`: those that choose boxes from the split
CHOICE_KEYS = ('shots', 'seed', 'skip_missing')


def prompt_hook(cfg: ConfigDict) -> tuple[str, dict]:
    """Dotted key and config of the ``PromptBankHook``; empty where the config has none."""
    default, custom = cfg.get('default_hooks') or {}, cfg.get('custom_hooks') or ()
    hooks = {f'default_hooks.{name}': hook for name, hook in default.items()}
    hooks |= {f'custom_hooks.{index}': hook for index, hook in enumerate(custom)}
    for key, hook in hooks.items():
        if isinstance(hook, dict) and type_name(hook) == 'PromptBankHook':
            return key, hook
    return '', {}


def hook_bank(cfg: ConfigDict) -> dict:
    """``bank`` of the config's ``PromptBankHook``; a path as ``dict(path=...)``, none as empty."""
    bank = prompt_hook(cfg)[1].get('bank') or {}
    return dict(path=bank) if isinstance(bank, str) else dict(bank)


def is_joint(cfg: ConfigDict) -> bool:
    """Whether the prompt encoder makes one embedding of all boxes of a class on an image."""
    kind = (cfg.model.get('prompt_encoder') or {}).get('type')
    return getattr(MODELS.get(kind) if isinstance(kind, str) else kind, 'joint', False)


def exemplar_config(
    bank: dict,
    cfg: ConfigDict,
    tested: Dataset | None = None,
    source: dict | None = None,
    classes: Sequence[str] | None = None,
) -> dict:
    """Config of the dataset that a bank is encoded from: an ``ExemplarDataset``.

    Args:
        bank: as for ``PromptBankHook``, such as :func:`hook_bank`.
        cfg: the whole config.
        tested: test set whose classes and pipeline count, and whose classes without a box may be
            without an exemplar, too. None: all classes of the split (all of
            the config's test set with ``match='id'``), and the config's test pipeline.
        source: ``prompts`` of a member of a ``DatasetGroup``; see :func:`exemplar_source`.
        classes: only these.

    Raises:
        ValueError: there is no split; or categories are matched by id, and a class is not in the
            test set, or there are several test sets.
    """
    split = exemplar_source(bank, cfg, source)
    if support := split.pop('support', None):
        split['ann_file'] = support
    pipeline = image_pipeline(cfg) if tested is None else [tested.pipeline]
    if split.pop('match', 'name') == 'id':
        if tested is None:
            built = DATASETS.build(deepcopy(cfg.test_dataloader.dataset))
            (_, tested, _), *more = members_of(built)
            if more:
                raise ValueError(
                    'Categories are matched by id with those of the test set, but there are '
                    'several test sets; name the annotation file and the image folder of one.'
                )
        id_of = dict(zip(tested.metainfo['classes'], tested.cat_ids, strict=True))
        classes = list(id_of if classes is None else classes)
        if unknown := [name for name in classes if name not in id_of]:
            hints = ', '.join(quote_with_near(name, id_of) for name in unknown)
            raise ValueError(f'The test set, whose category ids count, has no classes {hints}.')
        split['category_ids'] = [id_of[name] for name in classes]
    elif classes is None and tested is not None:
        classes = tested.metainfo['classes']
    choice = {key: bank[key] for key in CHOICE_KEYS if key in bank}
    if tested is not None and not choice.get('skip_missing'):
        choice['skip_missing'] = classes_without_boxes(tested)
    return dict(
        type='SupportListDataset' if support else 'ExemplarDataset',
        classes=None if classes is None else list(classes),
        pipeline=pipeline,
        joint=is_joint(cfg),
        **split,
        **choice,
    )
