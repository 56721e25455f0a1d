"""The page for boxes and detections: ``mim run mmdet_dino_r1 web_demo CONFIG CHECKPOINT``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmdet_dino_r1.apis import DINOR1Inferencer
from mmdet_dino_r1.utils.command_line import add_model, one_line_errors
from mmdet_dino_r1.web.listener import (
    add_address,
    address,
    is_loopback,
    open_port,
    warn_if_public,
    web_extra,
)

_EXAMPLES = """\
example:
    web_demo dino_r1_swin_t_coco.py epoch_12.pth --bank animals.safetensors
prints an address to open in a browser on this machine; Ctrl+C ends it.
To use it from your own computer while it runs on a server:
    ssh -L 7860:127.0.0.1:7860 SERVER
"""


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='web_demo',
        description='Draw boxes on pictures in a browser and see what is found in others.',
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    add = parser.add_argument
    add('--bank', help='prompt bank, whose classes every page starts with')
    add_address(parser, port=7860)
    largest = 'largest file of a picture in MB (default %(default)s)'
    add('--max-upload-mb', type=float, default=20, metavar='MB', help=largest)
    longest = 'longest side of a picture (default %(default)s)'
    add('--max-side', type=int, default=8000, metavar='PIXELS', help=longest)
    options = parser.parse_args(args)
    for name in ('max_upload_mb', 'max_side'):
        if not getattr(options, name) > 0:
            parser.error(f'--{name.replace("_", "-")} must be positive')
    return options


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    with web_extra('the page'):
        import waitress

        from mmdet_dino_r1.web.server import Limits, create_app
        from mmdet_dino_r1.web.shared_detector import SharedDetector
    listener = open_port(options.host, options.port)  # before the model, which takes time
    model = (options.config, options.checkpoint, options.device)
    inferencer = DINOR1Inferencer(*model, show_progress=False, cfg_options=options.cfg_options)
    detector = SharedDetector(inferencer, options.bank)
    limits = Limits(options.max_upload_mb, options.max_side)
    server = waitress.create_server(
        create_app(detector, limits, is_loopback(listener)),
        sockets=[listener],
        threads=8,  # pictures are received while the model works
        # It takes in a whole body before the application, whose limit answers in words, sees it.
        max_request_body_size=4 * limits.max_upload_bytes,
    )
    warn_if_public('web_demo', listener, options.host, 'page')
    print(f'Open {address(listener)} in a browser; Ctrl+C ends it.', flush=True)
    server.run()
    return 0


if __name__ == '__main__':
    sys.exit(main())
