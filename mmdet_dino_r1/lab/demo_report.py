"""The report of a demo: a table of its two tests, its curves, and what the prompts found."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from torch.utils.data import Dataset

from ..config.exemplars import exemplar_config, hook_bank
from ..config.tested_sets import innermost_dataset
from ..structures import protocol_summary
from .chance_level import chance_ap50
from .detections_figure import DetectionRow, draw_prompts_and_detections
from .figure import write_image
from .markdown import markdown_table
from .training.curves import draw_runs
from .training.log import read_run

SPLITS = ('base', 'novel')
CROPS = 4  # exemplars shown per class


@dataclass
class SplitRun:
    """A finished test."""

    name: str  # base or novel
    metrics: dict  # as mmengine logged them, for example coco/bbox_mAP
    cfg: Config
    ann_file: Path
    coco: dict  # its content
    exemplars: Dataset  # that prompted its classes
    detections: Mapping[int, list[dict]]  # as CocoMetric wrote them, by image id


def write_report(root: Path, score_thr: float, num_rows: int) -> tuple[str, list[Path]]:
    """Write the table, curves and detections into a demo's folder; the table, and all files."""
    curves = draw_runs({'demo': read_run(root)})
    runs = [read_split(root, name) for name in SPLITS]
    rows = [row for run in runs for row in make_rows(run, num_rows)]
    table = format_table(runs)
    (root / 'table.md').write_text(table)
    pictures = dict(curves=curves, detections=draw_prompts_and_detections(rows, score_thr))
    files = [write_image(root / f'{name}.png', image) for name, image in pictures.items()]
    return table, [root / 'table.md', *files]


def read_split(root: Path, name: str) -> SplitRun:
    """Read a test of the demo in ``root``."""
    command = (
        f'test the {name} classes first: mim test mmdet_dino_r1 CONFIG --checkpoint CHECKPOINT '
        f'--work-dir {root}/{name}'
    )
    logs = sorted(path for path in (root / name).glob('*/*.json') if path.stem == path.parent.name)
    metrics = logs[-1] if logs else root / name / '<timestamp>' / '<timestamp>.json'
    config = metrics.parent / 'vis_data' / 'config.py'
    _need(metrics, command)
    _need(config, command)
    results = root / name / 'results.bbox.json'
    outfile = f'--cfg-options test_evaluator.outfile_prefix={root}/{name}/results'
    _need(results, f'{command} {outfile}')
    cfg = Config.fromfile(config)
    dataset = innermost_dataset(cfg.test_dataloader.dataset)
    folder = dataset.get('data_root', '')
    ann_file = Path(folder, dataset.ann_file)
    _need(ann_file, f'make it: mim run mmdet_dino_r1 generate_shapes {folder}')
    coco = json.loads(ann_file.read_text())
    classes = [category['name'] for category in coco['categories']]
    entry = exemplar_config(hook_bank(cfg), cfg, classes=classes)
    exemplars = DATASETS.build(dict(entry, pipeline=[]))
    detections = defaultdict(list)
    for detection in json.loads(results.read_text()):
        detections[detection['image_id']].append(detection)
    metrics = json.loads(metrics.read_text())
    return SplitRun(name, metrics, cfg, ann_file, coco, exemplars, detections)


def _need(path: Path, remedy: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f'{path} is missing; {remedy}')


def format_table(runs: Sequence[SplitRun]) -> str:
    """The table of results in Markdown, with what it takes to read it."""
    head = ['split', 'classes', 'images', 'AP', 'AP50']
    head += ['chance AP50, one guess per box', 'chance AP50, every class per box']
    rows = []
    for run in runs:
        points = [run.metrics['coco/bbox_mAP'], run.metrics['coco/bbox_mAP_50']]
        points += [chance_ap50(str(run.ann_file), every_class=every) for every in (False, True)]
        counts = [len(run.coco['categories']), len(run.coco['images'])]
        rows.append([run.name, *map(str, counts), *(f'{100 * value:.1f}' for value in points)])
    text = [
        markdown_table(head, rows),
        '',
        'AP and AP50 of boxes in points of 100. Chance is a detector that knows every box '
        'of the ground truth but not its class: each box gets one class at random, or every '
        'class, with random scores (mean of 10 draws, seed 0).',
        '',
    ]
    for run in runs:
        most = run.cfg.model.get('test_cfg', {}).get('max_per_img') or 'all'
        text.append(
            f'- {run.name}: Visual-G, {protocol_summary(run.exemplars.summary)}; tested on '
            f'{run.ann_file}, {most} detections per image.'
        )
    return '\n'.join(text) + '\n'


def make_rows(run: SplitRun, num_rows: int) -> list[DetectionRow]:
    """Rows of the figure: the file's first images of 2 to 4 classes, whatever was found in them."""
    names = {category['id']: category['name'] for category in run.coco['categories']}
    truth = defaultdict(list)
    for box in run.coco['annotations']:
        truth[box['image_id']].append(box)
    classes = {of: sorted({box['category_id'] for box in boxes}) for of, boxes in truth.items()}
    shown = [image for image in run.coco['images'] if 2 <= len(classes.get(image['id'], ())) <= 4]
    crops = _crops(run.exemplars)
    dataset = innermost_dataset(run.cfg.test_dataloader.dataset)
    folder = Path(dataset.get('data_root', ''), dataset.get('data_prefix', {}).get('img', ''))
    rows = []
    for image in shown[:num_rows]:
        boxes, found = truth[image['id']], run.detections.get(image['id'], [])
        label_of = {category: label for label, category in enumerate(classes[image['id']])}
        class_names = [names[category] for category in label_of]
        rows.append(
            DetectionRow(
                title=f'{run.name}: {image["file_name"]}',
                class_names=class_names,
                prompts=[crops[name] for name in class_names],
                image=_read_image(folder / image['file_name']),
                gt_boxes=_boxes(boxes),
                gt_labels=np.array([label_of[box['category_id']] for box in boxes], int),
                boxes=_boxes(found),
                labels=np.array([label_of.get(box['category_id'], -1) for box in found], int),
                scores=np.array([box['score'] for box in found], float),
            )
        )
    return rows


def _crops(exemplars: Dataset) -> dict[str, list[np.ndarray]]:
    """Some exemplars of each class, cut out of their images."""
    crops = defaultdict(list)
    for index in range(len(exemplars)):
        info = exemplars.get_data_info(index)
        image = _read_image(info['img_path'])
        for label, box in zip(info['exemplar_labels'], info['exemplar_boxes'], strict=True):
            (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
            crops[exemplars.metainfo['classes'][label]].append(image[y1:y2, x1:x2])
    return {name: found[:CROPS] for name, found in crops.items()}


def _read_image(path: str | Path) -> np.ndarray:
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f'{path} is missing or not an image.')
    return image[..., ::-1]


def _boxes(entries: Sequence[dict]) -> np.ndarray:
    """COCO's ``xywh`` entries as ``xyxy``, ``(n, 4)``."""
    xywh = np.array([entry['bbox'] for entry in entries], float).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
