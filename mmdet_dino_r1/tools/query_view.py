"""Look at the queries of one or several checkpoints, side by side.

``mim run mmdet_dino_r1 query_view CONFIG CHECKPOINT [CHECKPOINT2 ...] --out DIR`` writes

    DIR/<image id>.png           where the queries are, what they prefer, their rewards
    DIR/rewards.png              rewards and advantages over all images
    DIR/<label>/<image id>.npz   all numbers (lab/query_view/view.py)
    DIR/summary.json             means per image and layer

for images of the config's test set, under the protocol Visual-G: each checkpoint encodes its own
prompts, from the same exemplars.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, DictAction
from torch.utils.data import Dataset

from mmdet_dino_r1.apis.weights import load_weights
from mmdet_dino_r1.config.loading import image_pipeline
from mmdet_dino_r1.config.shipped import config_path
from mmdet_dino_r1.config.tested_sets import exemplar_source
from mmdet_dino_r1.engine.bank_builder import encode_prompt_bank, weights_fingerprint
from mmdet_dino_r1.lab.query_view.collect import view_dataset
from mmdet_dino_r1.lab.query_view.figure import draw_queries, draw_rewards
from mmdet_dino_r1.lab.query_view.view import QueryView
from mmdet_dino_r1.structures import PromptBank, load_prompt_bank, protocol_summary


@dataclass
class Viewed:
    """A checkpoint and what was seen of it.

    Args:
        checkpoint: its file.
        bank: the prompts it was given.
        views: one per image.
    """

    checkpoint: str
    bank: PromptBank
    views: list[QueryView]


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='query_view',
        description='Positions, preferred classes and rewards of the queries, layer by layer.',
    )
    parser.add_argument('config', help='config file, or the bare name of a shipped one')
    parser.add_argument('checkpoints', nargs='+', metavar='CHECKPOINT', help='one row each')
    parser.add_argument('--labels', help='names of the checkpoints: SFT,GRQO (default: file names)')
    parser.add_argument('--out', type=Path, required=True, help='folder to write into')
    parser.add_argument(
        '--images', type=int, default=4, help='so many, evenly spread (default %(default)s)'
    )
    parser.add_argument('--image-ids', help='these instead: 1,2')
    parser.add_argument(
        '--bank',
        nargs='+',
        metavar='FILE',
        help='prompt bank of each checkpoint (default: encoded, as in a test)',
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1 (default: a GPU where there is one)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in mim test'
    )
    options = parser.parse_args(args)
    files = options.checkpoints
    options.labels = options.labels.split(',') if options.labels else _names(files)
    if len(set(options.labels)) != len(files):
        parser.error(f'--labels must give each of the {len(files)} checkpoints a name of its own')
    if options.bank and len(options.bank) != len(files):
        parser.error(f'--bank must name {len(files)} files, one for each checkpoint')
    if options.images < 1:
        parser.error('--images must be at least 1')
    options.image_ids = options.image_ids.split(',') if options.image_ids else None
    return options


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    try:
        found = look(options)
        print(format_table(found))
        for path in write(found, options.out):
            print(f'wrote {path}')
    except (ValueError, OSError) as error:
        print(f'query_view: {error}', file=sys.stderr)
        return 2
    return 0


def look(options: argparse.Namespace) -> dict[str, Viewed]:
    """Views of the same images under each checkpoint, by label.

    Raises:
        FileNotFoundError: config, checkpoint, bank, annotations or images are missing.
        ValueError: the test set is a group of datasets, there is no such device, or a file is not
            what it should be.
    """
    name = options.config
    cfg = Config.fromfile(name if Path(name).is_file() else config_path(name))
    cfg.merge_from_dict(options.cfg_options or {})
    register_all_modules(init_default_scope=True)
    entry = cfg.test_dataloader.dataset
    if 'datasets' in entry:
        raise ValueError(
            f'The test set is a {entry.type}; queries are looked at on one dataset at a time. Use '
            'a config, or --cfg-options, whose test_dataloader.dataset is one of its members.'
        )
    for path in [*options.checkpoints, *(options.bank or ())]:
        if '://' not in path and not Path(path).is_file():
            raise FileNotFoundError(f'There is no file {path}.')
    device = options.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'The device {device!r} cannot be used: {error}') from error
    dataset = DATASETS.build(deepcopy(entry))
    found = {}
    for place, (label, checkpoint) in enumerate(
        zip(options.labels, options.checkpoints, strict=True)
    ):
        model = MODELS.build(deepcopy(cfg.model))  # mmdet's detectors write into their config
        load_weights(model, checkpoint)
        model.to(device)
        given = options.bank[place] if options.bank else None
        bank = prompts_of(cfg, checkpoint, model, dataset, given)
        model.set_prompt_bank(bank)
        views = view_dataset(model, dataset, options.images, options.image_ids)
        found[label] = Viewed(checkpoint, bank, views)
    return found


def prompts_of(
    cfg: Config,
    checkpoint: str,
    model: torch.nn.Module,
    dataset: Dataset,
    given: str | None,
) -> PromptBank:
    """The bank that a test of the checkpoint would use, or the one given.

    Args:
        cfg: whose ``prompt_bank`` hook chooses the exemplars.
        checkpoint: the file of the model's weights, to name it.
        model: encodes them; a bank should have been made with its weights.
        dataset: whose classes are prompted.
        given: file of a bank; None takes the hook's, else encodes one.
    """
    classes = dataset.metainfo['classes']
    hook = (cfg.get('default_hooks') or {}).get('prompt_bank') or {}
    choice = hook.get('bank') or {}
    choice = dict(path=choice) if isinstance(choice, str) else choice
    path = given or choice.get('path')
    skip_missing = choice.get('skip_missing', False)
    if path is None:
        bank = _encoded(cfg, checkpoint, model, dataset, choice)
    else:
        bank = load_prompt_bank(path)
        if bank.provenance.get('weights') != weights_fingerprint(model):
            print(
                f'query_view: {path} was made with other weights than {checkpoint}; prompts of one '
                'model mean little to another.',
                file=sys.stderr,
            )
    return bank.aligned_to(classes, skip_missing)


def _encoded(
    cfg: Config, checkpoint: str, model: torch.nn.Module, dataset: Dataset, choice: dict
) -> PromptBank:
    """Encode the exemplars that ``bank`` of the ``prompt_bank`` hook chooses."""
    split = exemplar_source(choice, cfg)
    if split.pop('match', 'name') == 'id':
        split['category_ids'] = list(dataset.cat_ids)
    chosen = {key: choice[key] for key in ('shots', 'seed', 'skip_missing') if key in choice}
    exemplars = DATASETS.build(
        dict(
            type='ExemplarDataset',
            classes=list(dataset.metainfo['classes']),
            pipeline=image_pipeline(cfg),
            **split,
            **chosen,
        )
    )
    loader = cfg.test_dataloader
    return encode_prompt_bank(
        model,
        exemplars,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        keep_exemplars=False,
        progress=True,
        provenance=dict(model=Path(cfg.filename or '').stem, checkpoint=Path(checkpoint).name),
    )


def write(found: dict[str, Viewed], out: Path) -> list[Path]:
    """Write pictures and numbers.

    Args:
        found: of :func:`look`.
        out: folder, made where it is missing.

    Returns:
        The files.

    Raises:
        OSError: a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for views in zip(*(viewed.views for viewed in found.values()), strict=True):
        by_label = dict(zip(found, views, strict=True))
        name = _file_name(views[0])
        image = mmcv.imread(views[0].image_path, channel_order='rgb')
        written.append(_write_image(out / f'{name}.png', draw_queries(image, by_label)))
        written += [view.save(out / label / f'{name}.npz') for label, view in by_label.items()]
    if any(len(view.truth.gt_boxes) for view in next(iter(found.values())).views):
        rewards = draw_rewards({label: viewed.views for label, viewed in found.items()})
        written.append(_write_image(out / 'rewards.png', rewards))
    summary = {
        label: dict(
            checkpoint=viewed.checkpoint,
            prompts=dict(viewed.bank.provenance),
            images={str(view.image_id): view.summary() for view in viewed.views},
        )
        for label, viewed in found.items()
    }
    path = out / 'summary.json'
    path.write_text(json.dumps(summary, indent=1, default=str) + '\n', encoding='utf-8')
    return [*written, path]


def format_table(found: dict[str, Viewed]) -> str:
    """Means over the images with ground truth, a line for each checkpoint and layer."""
    keys = dict(
        score='score',
        reward='reward',
        reward_std='spread',
        reward_kept='kept',
        reward_muted='muted',
        reward_matched='matched',
        advantage='advantage',
    )
    width = max(map(len, [*found, 'model']))
    lines = [f'{"model":<{width}} {"stage":<10}' + ''.join(f'{n:>10}' for n in keys.values())]
    for label, viewed in found.items():
        rows = [view.summary() for view in viewed.views if len(view.truth.gt_boxes)]
        for of_stage in zip(*rows, strict=True):
            cells = [_cell([row[key] for row in of_stage]) for key in keys]
            lines.append(f'{label:<{width}} {of_stage[0]["stage"]:<10}' + ''.join(cells))
    images = [len(view.truth.gt_boxes) for view in next(iter(found.values())).views]
    lines.append(
        f'Means over {np.count_nonzero(images)} images; a reward is minus a match cost: higher is '
        'better.'
    )
    lines += [f'{label}: {protocol_summary(v.bank.provenance)}' for label, v in found.items()]
    return '\n'.join(lines) + '\n'


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f'{np.mean(known):>10.3f}' if known else f'{"–":>10}'


def _names(checkpoints: Sequence[str]) -> list[str]:
    """File names, with their folder's where they are alike."""
    stems = [Path(path).stem for path in checkpoints]
    if len(set(stems)) == len(stems):
        return stems
    return [f'{Path(path).parent.name}_{Path(path).stem}' for path in checkpoints]


def _file_name(view: QueryView) -> str:
    return str(view.image_id).replace('/', '_')


def _write_image(path: Path, image: np.ndarray) -> Path:
    if not cv2.imwrite(str(path), image[..., ::-1]):
        raise OSError(f'Could not write {path}.')
    return path


if __name__ == '__main__':
    sys.exit(main())
