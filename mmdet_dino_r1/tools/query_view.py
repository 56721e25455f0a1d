"""Look at the queries of one or several checkpoints, side by side; see docs/query_view.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.config.loading import load_config
from mmdet_dino_r1.lab.query_view.compare import format_table, view_checkpoints, write_views
from mmdet_dino_r1.utils.command_line import add_cfg_options, one_line_errors


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='query_view',
        description='Positions, preferred classes and rewards of the queries, layer by layer.',
    )
    add = parser.add_argument
    add('config', help='config file, or the bare name of a shipped one')
    add('checkpoints', nargs='+', metavar='CHECKPOINT', help='one row each')
    add('--labels', help='names of the checkpoints: SFT,GRQO (default: file names)')
    add('--out', type=Path, required=True, help='folder to write into')
    add('--images', type=int, default=4, help='so many, evenly spread (default %(default)s)')
    add('--image-ids', help='these instead: 1,2')
    banks = 'prompt bank of each checkpoint (default: encoded, as in a test)'
    add('--bank', nargs='+', metavar='FILE', help=banks)
    add('--device', help='cpu, cuda, cuda:1 (default: a GPU where there is one)')
    add_cfg_options(parser)
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


def _names(checkpoints: Sequence[str]) -> list[str]:
    """File names, with their folder's where they are alike."""
    stems = [Path(path).stem for path in checkpoints]
    if len(set(stems)) == len(stems):
        return stems
    return [f'{Path(path).parent.name}_{Path(path).stem}' for path in checkpoints]


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    found = view_checkpoints(
        load_config(options.config, options.cfg_options),
        dict(zip(options.labels, options.checkpoints, strict=True)),
        options.bank,
        options.images,
        options.image_ids,
        options.device,
    )
    print(format_table(found))
    for path in write_views(found, options.out):
        print(f'wrote {path}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
