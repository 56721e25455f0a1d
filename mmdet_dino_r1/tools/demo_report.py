"""Report of the demo: ``mim run mmdet_dino_r1 demo_report work_dirs/demo``.

Reads what training and the two tests left below the folder,

    <root>/<timestamp>/vis_data/scalars.json        losses, validations
    <root>/{base,novel}/<timestamp>/<timestamp>.json  COCO metrics
    <root>/{base,novel}/<timestamp>/vis_data/config.py  data and prompts
    <root>/{base,novel}/results.bbox.json           detections

and writes ``table.md``, ``curves.png`` and ``detections.png`` into it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from os import path as osp
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from mmdet_dino_r1.config.tested_sets import exemplar_source, innermost_dataset
from mmdet_dino_r1.datasets import ExemplarDataset
from mmdet_dino_r1.lab.chance_level import chance_ap50
from mmdet_dino_r1.lab.detections_figure import DetectionRow, draw_prompts_and_detections
from mmdet_dino_r1.lab.training.curves import draw_curves

SPLITS = ('base', 'novel')
CROPS = 4  # exemplars shown per class


@dataclass
class SplitRun:
    """A finished test.

    Args:
        name: ``base`` or ``novel``.
        metrics: As mmengine logged them, for example ``coco/bbox_mAP``.
        coco: The split's annotation file, parsed.
        ann_file: Its path.
        img_root: Folder that its ``file_name`` entries start from.
        bank: Arguments of ``ExemplarDataset`` the prompts came from.
        max_per_img: Detections kept per image.
    """

    name: str
    metrics: dict
    coco: dict
    ann_file: str
    img_root: str
    bank: dict
    max_per_img: int | None


# -------------------------------------------------------------------- reading
def read_scalars(root: Path) -> tuple[list[dict], list[dict]]:
    """Read what the newest training logged.

    Returns:
        Training steps and validations, in the order logged.

    Raises:
        FileNotFoundError: If nothing was trained here.
    """
    files = sorted(root.glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(
            f'{root}/<timestamp>/vis_data/scalars.json is missing; train first: '
            f'mim train mmdet_dino_r1 CONFIG --work-dir {root}'
        )
    rows = [json.loads(line) for line in files[-1].read_text().splitlines() if line.strip()]
    train = [row for row in rows if 'loss' in row]
    val = [row for row in rows if 'coco/bbox_mAP' in row]
    return train, val


def read_split(root: Path, name: str) -> SplitRun:
    """Read metrics, annotations and the source of the prompts of a test.

    Args:
        root: Folder of the demo.
        name: ``base`` or ``novel``.

    Raises:
        FileNotFoundError: If the split was not tested, or its data are gone.
    """
    files = sorted(path for path in (root / name).glob('*/*.json') if path.stem == path.parent.name)
    if not files:
        raise FileNotFoundError(
            f'{root}/{name}/<timestamp>/<timestamp>.json is missing; {_test_command(root, name)}'
        )
    config = files[-1].parent / 'vis_data' / 'config.py'
    if not config.exists():
        raise FileNotFoundError(f'{config} is missing; {_test_command(root, name)}')
    cfg = Config.fromfile(config)
    dataset = innermost_dataset(cfg.test_dataloader.dataset)
    data_root = dataset.get('data_root', '')
    ann_file = osp.join(data_root, dataset.ann_file)
    if not osp.exists(ann_file):
        raise FileNotFoundError(
            f'{ann_file} is missing; make it: mim run mmdet_dino_r1 generate_shapes '
            f'{data_root.rstrip("/")}'
        )
    return SplitRun(
        name=name,
        metrics=json.loads(files[-1].read_text()),
        coco=json.loads(Path(ann_file).read_text()),
        ann_file=ann_file,
        img_root=osp.join(data_root, dataset.get('data_prefix', {}).get('img', '')),
        bank=_bank_of(cfg),
        max_per_img=cfg.model.get('test_cfg', {}).get('max_per_img'),
    )


def read_detections(path: Path, root: Path, name: str) -> dict[int, list[dict]]:
    """Read the detections that ``CocoMetric`` wrote, by image id.

    Args:
        path: The file.
        root: Folder of the demo, for messages.
        name: Of the split, for messages.

    Raises:
        FileNotFoundError: If the test did not write them.
    """
    if not path.exists():
        raise FileNotFoundError(
            f'{path} is missing; {_test_command(root, name)} --cfg-options '
            f'test_evaluator.outfile_prefix={root}/{name}/results'
        )
    by_image = defaultdict(list)
    for detection in json.loads(path.read_text()):
        by_image[detection['image_id']].append(detection)
    return by_image


def _test_command(root: Path, name: str) -> str:
    return (
        f'test the {name} classes first: mim test mmdet_dino_r1 CONFIG '
        f'--checkpoint CHECKPOINT --work-dir {root}/{name}'
    )


def _bank_of(cfg: Config) -> dict:
    """Where ``PromptBankHook`` took the exemplars from: the training set by default."""
    hooks = [*cfg.get('default_hooks', {}).values(), *(cfg.get('custom_hooks') or [])]
    bank = {}
    for hook in hooks:
        if hook is not None and hook['type'] == 'PromptBankHook':
            bank = dict(hook.get('bank') or {})
    choice = {key: bank[key] for key in ('shots', 'seed') if key in bank}
    return exemplar_source(bank, cfg) | choice


# -------------------------------------------------------------------- writing
def format_table(runs: Sequence[SplitRun]) -> str:
    """The table of results in Markdown, with what it takes to read it."""
    lines = [
        '| split | classes | images | AP | AP50 | chance AP50, one guess per box '
        '| chance AP50, every class per box |',
        '|---|---|---|---|---|---|---|',
    ]
    for run in runs:
        points = [
            run.metrics['coco/bbox_mAP'],
            run.metrics['coco/bbox_mAP_50'],
            chance_ap50(run.ann_file, every_class=False),
            chance_ap50(run.ann_file, every_class=True),
        ]
        counts = [len(run.coco['categories']), len(run.coco['images'])]
        cells = [run.name, *map(str, counts), *(f'{100 * value:.1f}' for value in points)]
        lines.append(f'| {" | ".join(cells)} |')
    lines += [
        '',
        'AP and AP50 of boxes in points of 100. Chance is a detector that knows every box '
        'of the ground truth but not its class: each box gets one class at random, or every '
        'class, with random scores (mean of 10 draws, seed 0).',
        '',
    ]
    for run in runs:
        summary = _exemplars(run, None).summary
        lines.append(
            f'- {run.name}: Visual-G, N = {summary["shots"]} exemplars per class (fewest '
            f'{summary["fewest"]}), seed {summary["seed"]}, from {summary["ann_file"]}; tested '
            f'on {run.ann_file}, {run.max_per_img or "all"} detections per image.'
        )
    return '\n'.join(lines) + '\n'


def make_rows(
    run: SplitRun, detections: dict[int, list[dict]], num_rows: int
) -> list[DetectionRow]:
    """Rows of the figure: the split's first images that hold 2 to 4 classes.

    They are taken in the order of the file, not by how well they turned out.

    Args:
        run: The split's test.
        detections: Of :func:`read_detections`.
        num_rows: Most rows.

    Raises:
        FileNotFoundError: If an image is missing or cannot be read.
    """
    names = {cat['id']: cat['name'] for cat in run.coco['categories']}
    truth = defaultdict(list)
    for ann in run.coco['annotations']:
        truth[ann['image_id']].append(ann)
    shown = [
        image
        for image in run.coco['images']
        if 2 <= len({ann['category_id'] for ann in truth[image['id']]}) <= 4
    ][:num_rows]
    wanted = {names[ann['category_id']] for image in shown for ann in truth[image['id']]}
    crops = _crops(_exemplars(run, sorted(wanted))) if wanted else {}

    rows = []
    for image in shown:
        anns, found = truth[image['id']], detections.get(image['id'], [])
        cat_ids = sorted({ann['category_id'] for ann in anns})
        label_of = {cat_id: label for label, cat_id in enumerate(cat_ids)}
        rows.append(
            DetectionRow(
                title=f'{run.name}: {image["file_name"]}',
                class_names=[names[cat_id] for cat_id in cat_ids],
                prompts=[crops[names[cat_id]] for cat_id in cat_ids],
                image=_read_image(osp.join(run.img_root, image['file_name'])),
                gt_boxes=_boxes(anns),
                gt_labels=np.array([label_of[ann['category_id']] for ann in anns], int),
                boxes=_boxes(found),
                labels=np.array([label_of.get(det['category_id'], -1) for det in found], int),
                scores=np.array([det['score'] for det in found], float),
            )
        )
    return rows


def _exemplars(run: SplitRun, classes: list[str] | None) -> ExemplarDataset:
    """The exemplars of the run; without ``classes`` those of all its classes."""
    if classes is None:
        classes = [cat['name'] for cat in run.coco['categories']]
    return ExemplarDataset(classes=classes, pipeline=[], **run.bank)


def _crops(exemplars: ExemplarDataset) -> dict[str, list[np.ndarray]]:
    """Some exemplars of each class, cut out of their images."""
    crops = defaultdict(list)
    for index in range(len(exemplars)):
        info = exemplars.get_data_info(index)
        image = _read_image(info['img_path'])
        for label, box in zip(info['exemplar_labels'], info['exemplar_boxes'], strict=True):
            x1, y1 = (int(value) for value in box[:2])
            x2, y2 = (int(np.ceil(value)) for value in box[2:])
            crops[exemplars.metainfo['classes'][label]].append(image[y1:y2, x1:x2])
    return {name: found[:CROPS] for name, found in crops.items()}


def _read_image(path: str) -> np.ndarray:
    image = cv2.imread(path)
    if image is None:
        raise FileNotFoundError(f'{path} is missing or not an image.')
    return image[..., ::-1]  # RGB


def _boxes(entries: Sequence[dict]) -> np.ndarray:
    """COCO's ``xywh`` entries as ``xyxy``, ``(n, 4)``."""
    xywh = np.array([entry['bbox'] for entry in entries], float).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image[..., ::-1]):
        raise OSError(f'Could not write {path}.')
    print(f'wrote {path}')


# --------------------------------------------------------------- command line
def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='demo_report', description='Table, curves and figure of a demo run.'
    )
    parser.add_argument('root', nargs='?', default='work_dirs/demo', type=Path)
    parser.add_argument(
        '--results',
        nargs='+',
        default=[],
        metavar='SPLIT=FILE',
        help='detections of a split, instead of ROOT/SPLIT/results.bbox.json',
    )
    parser.add_argument('--score-thr', type=float, default=0.25, help='of detections drawn')
    parser.add_argument('--rows', type=int, default=3, help='images drawn per split')
    options = parser.parse_args(args)
    results = {name: options.root / name / 'results.bbox.json' for name in SPLITS}
    for override in options.results:
        name, _, path = override.partition('=')
        if name not in SPLITS or not path:
            parser.error(f'--results takes base=FILE or novel=FILE, got {override!r}')
        results[name] = Path(path)
    options.results = results
    return options


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    root = options.root
    try:
        train, val = read_scalars(root)
        runs = [read_split(root, name) for name in SPLITS]
        rows = []
        for run in runs:
            detections = read_detections(options.results[run.name], root, run.name)
            rows += make_rows(run, detections, options.rows)
        table = format_table(runs)
        (root / 'table.md').write_text(table)
        print(table)
        print(f'wrote {root / "table.md"}')
        _write_image(root / 'curves.png', draw_curves(train, val))
        _write_image(root / 'detections.png', draw_prompts_and_detections(rows, options.score_thr))
    except (ValueError, OSError) as error:
        print(f'demo_report: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
