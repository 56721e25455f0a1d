"""Predictions in Label Studio: ``mim run mmdet_dino_r1 label_studio CONFIG CHECKPOINT``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1.apis import DINOR1Inferencer
from mmdet_dino_r1.utils.command_line import add_model, one_line_errors
from mmdet_dino_r1.web.listener import (
    add_address,
    address,
    open_port,
    warn_if_public,
    web_extra,
)

_EXAMPLES = """\
example:
    export LABEL_STUDIO_API_KEY=…        (Label Studio: Account & Settings, Personal Access Token)
    label_studio dino_r1_swin_t_coco.py epoch_12.pth --bank animals.safetensors \\
        --save-bank tuned.safetensors --url http://localhost:8080
prints the URL to enter in the project's settings under "Model"; Ctrl+C ends it.
"""


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='label_studio',
        description='A machine learning backend for a Label Studio project with rectangles.',
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    add = parser.add_argument
    add('--bank', type=Path, help='prompt bank that predictions and every training begin with')
    saved = 'gets the bank of each training; if it is there, its prompts are in force at the start'
    add('--save-bank', type=Path, required=True, metavar='FILE', help=saved)
    labels = 'accept labels that the bank lacks: a training teaches them'
    add('--new-labels', action='store_true', help=labels)
    add('--score-thr', type=float, default=0.3, help='lowest score (default %(default)s)')
    url = 'of the Label Studio server, for uploads and annotations (default: $LABEL_STUDIO_URL)'
    add('--url', default=os.environ.get('LABEL_STUDIO_URL'), help=url)
    key = 'a token of one of its users (default: $LABEL_STUDIO_API_KEY, which others cannot see)'
    add('--api-key', default=os.environ.get('LABEL_STUDIO_API_KEY'), metavar='TOKEN', help=key)
    root = "folder of its local files, the server's LOCAL_FILES_DOCUMENT_ROOT, on this machine"
    add('--root', type=Path, metavar='FOLDER', help=root)
    add_address(parser, port=9090)
    options = parser.parse_args(args)
    if options.url and not options.url.startswith(('http://', 'https://')):
        parser.error(f'--url {options.url}: it begins with http:// or https://')
    if options.root and not options.root.is_dir():
        parser.error(f'--root {options.root} is no folder')
    if options.bank and options.bank.resolve() == options.save_bank.resolve():
        parser.error('--save-bank must be another file than --bank, which trainings begin with')
    return options


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    with web_extra('the backend'):
        import waitress

        from mmdet_dino_r1.web.label_studio import create_app
        from mmdet_dino_r1.web.label_studio_backend import LabelStudioBackend
        from mmdet_dino_r1.web.label_studio_tasks import LabelStudioServer
    listener = open_port(options.host, options.port)  # before the model, which takes time
    model = (options.config, options.checkpoint, options.device)
    backend = LabelStudioBackend(
        DINOR1Inferencer(*model, show_progress=False, cfg_options=options.cfg_options),
        LabelStudioServer(options.url, options.api_key, options.root),
        options.save_bank,
        options.bank,
        options.score_thr,
        options.new_labels,
    )
    server = waitress.create_server(create_app(backend), sockets=[listener], threads=8)
    warn_if_public('label_studio', listener, options.host, 'backend')
    if options.save_bank.exists():
        print(f'The prompts of {options.save_bank} are in force.')
    print(f'Enter {address(listener)} in Label Studio, under Model; Ctrl+C ends it.', flush=True)
    server.run()
    return 0


if __name__ == '__main__':
    sys.exit(main())
