"""Join what a ``detect`` that was stopped has finished: ``mim run mmdet_dino_r1 join_detections``.

A ``detect`` that comes to its end does it itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.apis.detection_parts import PartFolder
from mmdet_dino_r1.utils.command_line import one_line_errors


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='join_detections', description='Write predictions.json from the finished parts.'
    )
    parser.add_argument('out', type=Path, help='the --out of detect')
    parser.add_argument('--partial', action='store_true', help='also where parts are missing')
    options = parser.parse_args(args)
    folder = PartFolder.of_run(options.out)
    if (missing := folder.missing()) and not options.partial:
        raise ValueError(
            f'{len(missing)} of {folder.number} parts are missing: run the same detect again, or '
            'give --partial.'
        )
    print(f'{folder.result}: {folder.join().described()}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
