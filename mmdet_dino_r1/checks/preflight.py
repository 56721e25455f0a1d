"""What is looked at before a run, in one table: nothing is built where a check speaks.

A check returns what is wrong, with the remedy, or None. Only local paths are looked at.

Names: cfg = the config, ``--cfg-options`` merged; args = what mmdet's own parser made of the
command line; stage = 'train' (its validation included) or 'test'.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections import defaultdict

from mmengine.config import Config

from ..config.exemplars import prompt_hook
from ..config.tree import type_name
from ..engine.sharding import INSTEAD_OF_SHARDS, STRATEGY_OF_WRAPPER, no_reference_message
from ..engine.text_embedding import bert_for
from ..models.detectors.equal_keys import explain_unequal
from ..utils.near_names import quote_with_near
from .annotation_table import AnnotationTable
from .config_keys import explain_misspelt
from .data import check, explain_data
from .data_problem import number, quoted, report_problems
from .given_files import explain_checkpoint, explain_work_dir
from .paths import (
    Needed,
    explain_dataset_arguments,
    needed_paths,
    prompt_files,
    ready_bank,
)

# Where the data of a shipped config is missing: part of the path, remedy; the first that fits.
_HOW_TO_GET = {
    'checkpoints/pet_dino_': (
        "PET-DINO's weights are fetched by hand, from huggingface.co/fuweifu/PET-DINO, and saved "
        'under that name: docs/weights.md.'
    ),
    'data/coco/annotations/lvis_v1_': (
        'LVIS v1 annotations (lvisdataset.org) belong in data/coco/annotations/; the images are '
        "COCO's train2017/ and val2017/. The minival file is the one that MDETR published."
    ),
    'text_embeddings': (
        'Embed the class names once (needs transformers): mim run mmdet_dino_r1 '
        'cache_text_embeddings CONFIG --bert bert-base-uncased --out FILE; or train without: '
        '--cfg-options model.text_alignment=None'
    ),
    'data/coco/': 'COCO 2017 belongs under data/coco/: annotations/, train2017/, val2017/.',
    'data/Objects365/': 'Objects365 v1 belongs under data/Objects365/Obj365_v1/.',
    'data/odinw/': 'ODinW belongs under data/odinw/, one folder per dataset.',
    'data/shapes/': 'Make the shapes set: mim run mmdet_dino_r1 generate_shapes data/shapes',
    'data/shapes_hard/': (
        'Make the hard shapes set: mim run mmdet_dino_r1 generate_shapes data/shapes_hard '
        '--difficulty hard --image-size 96 --val-images 100 --val-novel-images 100'
    ),
}


def explain_mistake(cfg: Config, args: Namespace, stage: str) -> str | None:
    """What cannot work whatever files there are."""
    return next((said for check in _MISTAKES if (said := check(cfg, args, stage))), None)


def explain_sharding(cfg: Config, args: Namespace, stage: str) -> str | None:
    """What a training cannot do with its strategy or wrapper, with the remedy; None if it can."""
    if stage != 'train':
        return None
    wrapper, strategy = type_name(cfg.get('model_wrapper_cfg')), type_name(cfg.get('strategy'))
    if wrapper in STRATEGY_OF_WRAPPER:
        return (
            f"model_wrapper_cfg.type='{wrapper}': mmengine's Runner initialises the weights after "
            f'it has wrapped the model, which fails for shards. {INSTEAD_OF_SHARDS}; or train '
            "VIS-GDINO with runner_type='FlexibleRunner', "
            f"strategy=dict(type='{STRATEGY_OF_WRAPPER[wrapper]}')."
        )
    if strategy and type_name(dict(type=cfg.get('runner_type'))) != 'FlexibleRunner':
        return (
            f"strategy.type='{strategy}' is read by runner_type='FlexibleRunner' alone; the "
            'Runner would train without it. Set runner_type, or leave strategy out.'
        )
    grqo = cfg.get('model', {}).get('bbox_head', {}).get('loss_grqo') or dict(kl_weight=0)
    if strategy in STRATEGY_OF_WRAPPER.values() and grqo.get('kl_weight', 1) > 0:
        return no_reference_message(strategy)
    return None


def _unequal_keys(cfg: Config, args: Namespace, stage: str) -> str | None:
    """What the detector would refuse."""
    model = cfg.get('model')
    return explain_unequal(model) if type_name(model) == 'DINOR1' else None


def _tested(cfg: Config, stage: str) -> tuple[str, dict]:
    """The split that a stage evaluates, and its dataset."""
    split = 'val' if stage == 'train' else 'test'
    return split, (cfg.get(f'{split}_dataloader') or {}).get('dataset', {})


def _unknown_member(cfg: Config, args: Namespace, stage: str) -> str | None:
    """Names in ``only`` that the group has not."""
    split, dataset = _tested(cfg, stage)
    group, only, key = dataset.get('datasets'), dataset.get('only'), f'{split}_dataloader.dataset'
    if not isinstance(group, dict) or only is None:
        return None
    if isinstance(only, str):
        return f'{key}.only must be a list: {key}.only="[\'{only}\']"'
    known = [name for name, member in group.items() if member is not None]
    unknown = ', '.join(quote_with_near(name, known) for name in only if name not in known)
    said = f'{key}.only names datasets that the group has not: {unknown}. It has: '
    return said + ', '.join(known) if unknown else None


def _test_time_augmentation(cfg: Config, args: Namespace, stage: str) -> str | None:
    """Why ``--tta`` cannot work with this test set and these prompts."""
    if not getattr(args, 'tta', False):
        return None
    if _tested(cfg, stage)[1].get('datasets'):
        return (
            '--tta works with a single dataset: a group has no pipeline of its own to be flipped. '
            'Give test_dataloader.dataset one dataset instead (`only` does not help).'
        )
    key, hook = prompt_hook(cfg)
    if hook.get('protocol') == 'visual_i':
        return (
            '--tta does not go with protocol visual_i: the boxes that serve as prompts would '
            'not be flipped with the image. Use visual_g with a prompt bank.'
        )
    if hook and ready_bank(hook) is None:
        return (
            '--tta needs a ready prompt bank: reference images would pass through the flips as '
            'well. Build one (mim run mmdet_dino_r1 build_prompt_bank CONFIG CHECKPOINT --out '
            f'FILE) and add --cfg-options {key}.bank=FILE'
        )
    return None


def _no_split_for_prompts(cfg: Config, args: Namespace, stage: str) -> str | None:
    """Why the exemplars of a validation or test cannot be found."""
    try:
        list(prompt_files(cfg, _tested(cfg, stage)[0]))
    except ValueError as error:
        return str(error)
    return None


def find_missing(cfg: Config, args: Namespace, stage: str) -> list[Needed]:
    """Every needed path that does not exist; ValueError where :func:`explain_mistake` speaks."""
    return [item for item in needed_paths(cfg, args, stage) if not os.path.exists(item.path)]


def explain_missing(cfg: Config, args: Namespace, stage: str) -> str | None:
    """All paths that do not exist."""
    return report_missing(find_missing(cfg, args, stage), args.config)


def report_missing(missing: list[Needed], config: str) -> str | None:
    """All missing paths of a config in one message, then what to do; None for none."""
    if not missing:
        return None
    count = number(len(missing), 'path')
    lines = [f'nothing was started: {count} that {config} needs cannot be found.']
    by_owner = defaultdict(lambda: defaultdict(list))
    for item in missing:
        by_owner[item.owner][item.member or item.key].append(item)
    width = max(len(name) for found in by_owner.values() for name in found)
    for owner, found in by_owner.items():
        lines.append(f'  {owner}')
        lines += [f'    {name:{width}}  {_place(items)}' for name, items in found.items()]
    lines.append(f'Remedy: put the files there (relative paths start at {os.getcwd()})')
    paths = [item.path.replace(os.sep, '/') for item in missing]
    fitting = {next((part for part in _HOW_TO_GET if part in path), None) for path in paths}
    lines += [f'  {remedy}' for part, remedy in _HOW_TO_GET.items() if part in fitting]
    movable = [item for item in missing if item.override]
    if overrides := dict.fromkeys(item.override for item in movable if not item.member):
        lines += ['or say where they are:', '  --cfg-options ' + ' '.join(overrides)]
    for group in dict.fromkeys(item.override for item in movable if item.member):
        lines.append('or leave them out of the mean, or name the ones to test:')
        lines.append(f'  --cfg-options {group}.skip_missing=True')
        lines.append(f"  --cfg-options {group}.only=\"['NAME','NAME']\"")
    return '\n'.join(lines)


def explain_texts(cfg: Config, args: Namespace, stage: str) -> str | None:
    """Why a training cannot make the embeddings of its classes' names, where they are missing."""
    texts = (cfg.get('model') or {}).get('text_alignment') or {}
    if stage != 'train' or not texts.get('bert') or os.path.exists(texts.embeddings):
        return None
    try:
        bert_for(texts.embeddings, texts.bert)
    except FileNotFoundError as error:
        return f'{error}\nOr train without them: --cfg-options model.text_alignment=None'
    return None


def _place(items: list[Needed]) -> str:
    """The path or, of a member of a group, the folder that is missing or lacks several."""
    folder = os.path.commonpath([os.path.abspath(item.path) for item in items])
    keys = f': {", ".join(item.key for item in items)}' if os.path.exists(folder) else ''
    return folder + keys


def report_data(
    cfg: Config, config: str, each_image: bool = False, as_json: bool = False
) -> tuple[str, bool]:
    """What the config of that name needs, what is there, and what is wrong with it.

    Returns:
        The text or JSON, and whether a run would fail or its numbers be worthless.

    Raises:
        ValueError: the config cannot work whatever files there are.
    """
    for stage in ('train', 'test'):
        if mistake := explain_mistake(cfg, Namespace(), stage):
            raise ValueError(mistake)
    by_path = {}
    for item in needed_paths(cfg, Namespace(resume=None), 'all'):
        by_path.setdefault(os.path.normpath(item.path), item)
    needed = list(by_path.values())
    missing = [item for item in needed if not os.path.exists(item.path)]
    files, problems = check(cfg, 'all', each_image)
    is_bad = bool(missing) or any(problem.is_error for problem in problems)
    if as_json:
        found = dict(
            config=config,
            paths=[item._asdict() | dict(there=item not in missing) for item in needed],
            files=[dict(path=table.path, uses=uses, **table.summary()) for table, uses in files],
            problems=[problem._asdict() for problem in problems],
        )
        return json.dumps(found, indent=1, ensure_ascii=False), is_bad
    lines = [
        f'{"MISSING" if item in missing else "there  "}  {item.path}  '
        f'({item.owner.split(" (")[0]}, {item.key})'
        for item in needed
    ]
    lines += [_describe(table, uses) for table, uses in files]
    lines.append(report_problems(problems, config))
    if missing:
        # without its first line, which speaks of a start
        remedies = report_missing(missing, config).partition('\n')[2]
        lines += [f'missing: {quoted([item.path for item in missing])}', remedies]
    return '\n'.join(lines), is_bad


def _describe(table: AnnotationTable, uses: list[str]) -> str:
    """What is in a file, and what it is used for, in three lines."""
    found = table.summary()
    images, boxes = number(found['images'], 'image'), number(found['boxes'], 'box', 'boxes')
    fewest = [f'{name!r} {count}' for name, count in found['boxes_by_class'].items()][:5]
    return (
        f'{table.path} ({", ".join(uses)})\n'
        f'  {images}, {found["images_without_boxes"]} without boxes; {boxes}, '
        f'{found["crowd_boxes"]} of them crowds; {number(found["classes"], "class", "classes")}\n'
        f'  fewest boxes: {", ".join(fewest)}'
    )


_MISTAKES = (
    _unequal_keys,
    explain_sharding,
    explain_dataset_arguments,
    _unknown_member,
    _test_time_augmentation,
    _no_split_for_prompts,
)
# In this order; the first that speaks ends the start.
CHECKS = (explain_misspelt, explain_mistake, explain_missing, explain_work_dir)
# What reads large files, or fetches them, is for the first of several processes, with which the
# others end.
CHECKS_OF_FIRST_PROCESS = (explain_checkpoint, explain_texts, explain_data)
