"""The address that a server of this package listens on, and what all of them need and say."""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """Add to a parser ``--host`` and ``--port``, whose default is ``port``."""
    host = 'address to listen on (default %(default)s: this machine alone); there is no password'
    parser.add_argument('--host', default='127.0.0.1', help=host)
    parser.add_argument('--port', type=_port, default=port, help='(default %(default)s; 0: any)')


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f'{text}: ports go from 0 to 65535')
    return int(text)


@contextmanager
def web_extra(what: str) -> Iterator[None]:
    """Inside, packages are imported that only ``what``, in the message, needs.

    Raises:
        ValueError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ('flask', 'werkzeug', 'waitress'):
            raise
        raise ValueError(
            f"{what} needs flask and waitress: pip install 'mmdet_dino_r1[web]', or "
            'pip install flask waitress'
        ) from error


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
    """The URL under which others reach a socket."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f'http://[{host}]:{port}/' if ':' in host else f'http://{host}:{port}/'


def warn_if_public(tool: str, listener: socket.socket, host: str, what: str) -> None:
    """Say on stderr that there is no password, where more than this machine reaches a socket."""
    if not is_loopback(listener):
        print(
            f'{tool}: warning: whoever reaches {host} can use this {what}; there is no '
            'password, and the connection is not encrypted.',
            file=sys.stderr,
        )
