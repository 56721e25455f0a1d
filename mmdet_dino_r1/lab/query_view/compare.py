"""The queries of several checkpoints on the same images: pictures, numbers, a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn
from torch.utils.data import Dataset

from ...apis.weights import build_model, choose_device
from ...config.exemplars import exemplar_config, hook_bank
from ...config.tested_sets import are_enough
from ...engine.bank_builder import encode_prompt_bank, weights_fingerprint
from ...structures import PromptBank, load_prompt_bank, protocol_summary
from ..figure import write_image
from .collect import refuse_group, view_dataset
from .figure import draw_queries, draw_rewards
from .view import QueryView

# columns of the table: heading and key of QueryView.summary
_COLUMNS = dict(
    score='score',
    reward='reward',
    spread='reward_std',
    kept='reward_kept',
    muted='reward_muted',
    matched='reward_matched',
    advantage='advantage',
)


class Viewed(NamedTuple):
    """A checkpoint file, the prompts it was given, and a view of each image."""

    checkpoint: str
    bank: PromptBank
    views: list[QueryView]


def view_checkpoints(
    cfg: Config,
    checkpoints: Mapping[str, str],
    banks: Sequence[str] | None = None,
    num_images: int = 4,
    image_ids: Sequence[int | str] | None = None,
    device: str | None = None,
) -> dict[str, Viewed]:
    """Views of images of the config's test set under each checkpoint, by label.

    The images are evenly spread, or those named. Each checkpoint has its bank; without banks one
    is encoded for each, as a test does. All checkpoints are of the config's architecture.
    FileNotFoundError: a checkpoint or bank is missing.
    """
    register_all_modules(init_default_scope=True)
    entry = cfg.test_dataloader.dataset
    refuse_group(entry)
    for path in [*checkpoints.values(), *(banks or ())]:
        if '://' not in path and not Path(path).is_file():
            raise FileNotFoundError(f'There is no file {path}.')
    device = choose_device(device)
    dataset = DATASETS.build(deepcopy(entry))
    found = {}
    for place, (label, checkpoint) in enumerate(checkpoints.items()):
        model = build_model(cfg, checkpoint).to(device)
        bank = _prompts(cfg, checkpoint, model, dataset, banks[place] if banks else None)
        model.set_prompt_bank(bank)
        found[label] = Viewed(checkpoint, bank, view_dataset(model, dataset, num_images, image_ids))
    return found


def _prompts(
    cfg: Config, checkpoint: str, model: nn.Module, dataset: Dataset, given: str | None
) -> PromptBank:
    """The bank given, else the one that a test of the checkpoint would use."""
    choice = hook_bank(cfg)
    if path := given or choice.get('path'):
        bank = load_prompt_bank(path)
        if bank.provenance.get('weights') != weights_fingerprint(model):
            print(
                f'query_view: {path} was made with other weights than {checkpoint}; prompts of one '
                'model mean little to another.',
                file=sys.stderr,
            )
    else:
        bank = encode_prompt_bank(
            model,
            DATASETS.build(exemplar_config(choice, cfg, dataset)),
            batch_size=cfg.test_dataloader.batch_size,
            num_workers=cfg.test_dataloader.num_workers,
            keep_exemplars=False,
            progress=True,
            provenance=dict(model=Path(cfg.filename or '').stem, checkpoint=Path(checkpoint).name),
        )
    skips = choice.get('skip_missing') or are_enough(bank.class_names, dataset)
    return bank.aligned_to(dataset.metainfo['classes'], skips)


def write_views(found: Mapping[str, Viewed], out: Path) -> list[Path]:
    """Write pictures and numbers into a folder; returns the files."""
    written = []
    for views in zip(*(viewed.views for viewed in found.values()), strict=True):
        by_label = dict(zip(found, views, strict=True))
        image = mmcv.imread(views[0].image_path, channel_order='rgb')
        written.append(write_image(out / f'{views[0].name}.png', draw_queries(image, by_label)))
        for label, view in by_label.items():
            written.append(view.save(out / label / f'{view.name}.npz'))
    if any(_numbers_of_boxes(found)):
        rewards = draw_rewards({label: viewed.views for label, viewed in found.items()})
        written.append(write_image(out / 'rewards.png', rewards))
    summary = {
        label: dict(
            checkpoint=viewed.checkpoint,
            prompts=dict(viewed.bank.provenance),
            images={str(view.image_id): view.summary() for view in viewed.views},
        )
        for label, viewed in found.items()
    }
    written.append(out / 'summary.json')
    written[-1].write_text(json.dumps(summary, indent=1, default=str) + '\n', encoding='utf-8')
    return written


def format_table(found: Mapping[str, Viewed]) -> str:
    """Means over the images with ground truth, a line for each checkpoint and layer."""
    width = max(map(len, [*found, 'model']))
    lines = [f'{"model":<{width}} {"stage":<10}' + ''.join(f'{name:>10}' for name in _COLUMNS)]
    for label, viewed in found.items():
        rows = [view.summary() for view in viewed.views if len(view.truth.gt_boxes)]
        for of_stage in zip(*rows, strict=True):
            line = f'{label:<{width}} {of_stage[0]["stage"]:<10}'
            for key in _COLUMNS.values():
                known = [row[key] for row in of_stage if row[key] is not None]
                line += f'{np.mean(known):>10.3f}' if known else f'{"–":>10}'
            lines.append(line)
    lines.append(
        f'Means over {np.count_nonzero(_numbers_of_boxes(found))} images; a reward is minus a '
        'match cost: higher is better.'
    )
    lines += [f'{label}: {protocol_summary(v.bank.provenance)}' for label, v in found.items()]
    return '\n'.join(lines) + '\n'


def _numbers_of_boxes(found: Mapping[str, Viewed]) -> list[int]:
    return [len(view.truth.gt_boxes) for view in next(iter(found.values())).views]
