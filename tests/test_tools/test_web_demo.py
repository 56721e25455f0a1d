"""The command line of the web page."""

import builtins
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from functools import partial

import pytest

from mmdet_dino_r1.tools.web_demo import main, parse_args
from mmdet_dino_r1.web.listener import address, is_loopback, open_port


@pytest.fixture
def tiny(tiny_files):
    return [*tiny_files, '--device', 'cpu']


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--port', '65536'], 'ports go from 0 to 65535'),
        (['--max-upload-mb', '0'], '--max-upload-mb must be positive'),
        (['--max-upload-mb', 'nan'], '--max-upload-mb must be positive'),
        (['--max-side', '-1'], '--max-side must be positive'),
    ],
)
def test_mistakes_on_the_command_line(more, message, capsys):
    with pytest.raises(SystemExit):
        parse_args(['c.py', 'w.pth', *more])
    assert message in capsys.readouterr().err


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit):
        parse_args(['--help'])
    assert '--bank animals.safetensors' in capsys.readouterr().out


@pytest.mark.parametrize('missing', ['flask', 'waitress'])
def test_without_flask_one_line_says_what_to_install(missing, monkeypatch, capsys):
    genuine = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition('.')[0] == missing:
            raise ModuleNotFoundError(f'No module named {missing!r}', name=missing)
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    monkeypatch.delitem(sys.modules, 'mmdet_dino_r1.web.server', raising=False)
    assert main(['c.py', 'w.pth']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'mmdet_dino_r1[web]'" in line and 'pip install flask waitress' in line


def test_mistakes_end_in_one_line(tiny, capsys, tmp_path):
    pytest.importorskip('flask')
    pytest.importorskip('waitress')
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        # before anything is built: neither config nor checkpoint exists
        assert main(['c.py', 'w.pth', '--port', str(port)]) == 2
    assert f'port {port}: ' in (err := capsys.readouterr().err) and '--port' in err
    for args, message in (
        ([*tiny, '--host', 'no.such.host.invalid'], 'is no address of this machine'),
        (['gone.py', *tiny[1:]], 'gone.py'),
        ([*tiny, '--bank', 'gone.safetensors'], 'gone.safetensors'),
    ):
        assert main([*args, '--port', '0']) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith('web_demo: ') and message in last


def test_addresses():
    with open_port('127.0.0.1', 0) as local:
        assert is_loopback(local)
        assert address(local) == f'http://127.0.0.1:{local.getsockname()[1]}/'
    with open_port('0.0.0.0', 0) as public:
        assert not is_loopback(public)
        assert address(public) == f'http://{socket.gethostname()}:{public.getsockname()[1]}/'


@pytest.mark.slow
@pytest.mark.parametrize('host', ['127.0.0.1', '0.0.0.0'])
def test_it_serves_until_it_is_interrupted(tiny, host):
    pytest.importorskip('flask')
    pytest.importorskip('waitress')
    command = [sys.executable, '-m', 'mmdet_dino_r1.tools.web_demo', *tiny]
    server = subprocess.Popen(
        [*command, '--port', '0', '--host', host],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore interrupts, and so would their children
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = next(line for line in server.stdout if line.startswith('Open http'))
        port = re.search(r':(\d+)/ in a browser', line)[1]
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=120) as answer:
            assert b'name="page-token"' in answer.read()
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=120)
        assert server.returncode == 0
        assert ('there is no password' in err) == (host == '0.0.0.0')
    finally:
        server.kill()
