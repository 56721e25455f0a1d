"""The page for boxes and detections: ``mim run mmdet_dino_r1 web_demo CONFIG CHECKPOINT``."""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
from collections.abc import Sequence

from mmdet_dino_r1.apis import DINOR1Inferencer
from mmdet_dino_r1.utils.command_line import add_model, one_line_errors

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
    host = 'address to listen on (default %(default)s: this machine alone); there is no password'
    add('--host', default='127.0.0.1', help=host)
    add('--port', type=int, default=7860, help='(default %(default)s; 0: any)')
    largest = 'largest file of a picture in MB (default %(default)s)'
    add('--max-upload-mb', type=float, default=20, metavar='MB', help=largest)
    longest = 'longest side of a picture (default %(default)s)'
    add('--max-side', type=int, default=8000, metavar='PIXELS', help=longest)
    options = parser.parse_args(args)
    if not 0 <= options.port <= 65535:
        parser.error(f'--port {options.port}: ports go from 0 to 65535')
    for name in ('max_upload_mb', 'max_side'):
        if not getattr(options, name) > 0:
            parser.error(f'--{name.replace("_", "-")} must be positive')
    return options


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    try:
        import waitress

        from mmdet_dino_r1.web.server import Limits, create_app
        from mmdet_dino_r1.web.shared_detector import SharedDetector
    except ModuleNotFoundError as error:
        if error.name not in ('flask', 'werkzeug', 'waitress'):
            raise
        raise ValueError(
            "the page needs flask and waitress: pip install 'mmdet_dino_r1[web]', or "
            'pip install flask waitress'
        ) from error
    listener = open_port(options.host, options.port)  # before the model, which takes time
    model = (options.config, options.checkpoint, options.device)
    inferencer = DINOR1Inferencer(*model, show_progress=False, cfg_options=options.cfg_options)
    detector = SharedDetector(inferencer, options.bank)
    local = is_loopback(listener)
    limits = Limits(options.max_upload_mb, options.max_side)
    server = waitress.create_server(
        create_app(detector, limits, local),
        sockets=[listener],
        threads=8,  # pictures are received while the model works
        # It takes in a whole body before the application, whose limit answers in words, sees it.
        max_request_body_size=4 * limits.max_upload_bytes,
    )
    if not local:
        print(
            f'web_demo: warning: whoever reaches {options.host} can use this page; there is no '
            'password, and the connection is not encrypted.',
            file=sys.stderr,
        )
    print(f'Open {address(listener)} in a browser; Ctrl+C ends it.', flush=True)
    server.run()
    return 0


def open_port(host: str, port: int) -> socket.socket:
    """Take a port (0: a free one) of a host; OSError: it is unknown, or the port is taken."""
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(place, family=family, dualstack_ipv6=both)
    except socket.gaierror as error:
        raise OSError(f'--host {host} is no address of this machine: {error.strerror}') from error
    except OSError as error:
        raise OSError(
            f'cannot listen on {host}, port {port}: {error.strerror}. If the port is taken, choose '
            'another with --port (0: any free one).'
        ) from error


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address(listener: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f'http://[{host}]:{port}/' if ':' in host else f'http://{host}:{port}/'


if __name__ == '__main__':
    sys.exit(main())
