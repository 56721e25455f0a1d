"""Check the data of a config: ``mim run mmdet_dino_r1 check_data CONFIG``.

``mim train`` does the same before it builds a model, with annotation files up to 200 MB; a
config with ``check_data = False`` is trained without.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmdet_dino_r1.checks.preflight import report_data
from mmdet_dino_r1.config.loading import load_config
from mmdet_dino_r1.utils.command_line import add_cfg_options, one_line_errors


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='check_data',
        description='What a config needs, what is in its annotation files, and what is wrong with '
        'them. Exit status 1 if there are errors or paths are missing.',
    )
    parser.add_argument('config', help='path of a config, or name of a shipped one')
    about_images = (
        'read every image to its end; otherwise only headers, and not of all in a large set'
    )
    parser.add_argument('--images', action='store_true', help=about_images)
    parser.add_argument('--json', action='store_true', help='print one JSON object instead')
    add_cfg_options(parser)
    options = parser.parse_args(args)
    cfg = load_config(options.config, options.cfg_options)
    text, is_bad = report_data(cfg, options.config, options.images, options.json)
    print(text)
    return int(is_bad)


if __name__ == '__main__':
    sys.exit(main())
