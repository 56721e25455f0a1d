"""What has to stand beside every number: protocol, N, seed, split, detections, chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

import mmengine
import torch
from mmengine.dist import master_only
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from ...structures.prompt_bank import is_tuned
from ...version import __version__


def protocol_record(
    protocol: str,
    model: nn.Module,
    provenances: Mapping[str | None, dict],
    fingerprint: str | None = None,
) -> dict:
    """``weights`` and ``protocol`` of the record, in plain JSON values; prints a line of it.

    The provenances are those of each test set's prompt bank, by name; None names a single one.
    """
    cfg = model.test_cfg
    described = dict(
        name=protocol,
        detections_per_image=cfg.get('max_per_img', model.num_queries),
        chunk_size=cfg.get('chunk_size', 0),
        detections_per_chunk=cfg.get('max_per_chunk', 0),
        nms=dict(cfg['nms']) if cfg.get('nms') else None,
    )
    keys = dict(shots='shots', fewest='fewest', seed='seed', source='ann_file')
    splits = {
        name: {ours: provenance.get(theirs, 'unknown') for ours, theirs in keys.items()}
        | dict(joint=provenance.get('joint', False), tuned=is_tuned(provenance))
        | dict(without_prompt=provenance.get('classes_left_out', []))
        for name, provenance in provenances.items()
    }
    first, *others = splits.values()
    described |= {
        key: value if all(other[key] == value for other in others) else 'differs'
        for key, value in first.items()
    }
    if None not in splits:
        described['datasets'] = splits
    source = described['source'] if None in splits else 'each train split'
    print_log(
        'Protocol {name}: N = {shots}, seed {seed}, prompts from {source}{tuned}, '
        '{detections_per_image} detections per image, chunk size {chunk_size}'.format(
            **described | dict(source=source, tuned=', tuned' * bool(described['tuned']))
        ),
        logger='current',
    )
    return dict(weights=fingerprint, protocol=described)


@master_only
def write_record(runner: Runner, name: str, record: dict, metrics: Mapping | None) -> None:
    """Write ``<log dir>/metrics/<name>.json``; metrics that are not finite become null."""
    path = Path(runner.log_dir) / 'metrics' / f'{name}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(
        config=Path(runner.cfg.filename or '').stem,
        checkpoint=runner.cfg.get('load_from'),
        **record,
        metrics={key: _plain(value) for key, value in (metrics or {}).items()},
        versions=dict(
            mmdet_dino_r1=__version__, mmengine=mmengine.__version__, torch=torch.__version__
        ),
    )
    path.write_text(json.dumps(content, indent=1, default=str) + '\n', encoding='utf-8')
    print_log(f'Metrics and protocol: {path}', logger='current')


def _plain(value: object) -> object:
    """A number as JSON knows it."""
    if isinstance(value, str | bool) or value is None:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if isfinite(number) else None
