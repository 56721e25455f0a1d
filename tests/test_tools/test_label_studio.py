"""The command line of Label Studio's backend."""

import builtins
import re
import signal
import subprocess
import sys
import urllib.request
from functools import partial

import pytest

from mmdet_dino_r1.tools.label_studio import main, parse_args

NEEDED = ['c.py', 'w.pth', '--save-bank', 'tuned.safetensors']


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (NEEDED[:2], 'required: --save-bank'),
        ([*NEEDED, '--port', '65536'], '--port: 65536: ports go from 0 to 65535'),
        ([*NEEDED, '--url', 'localhost:8080'], '--url localhost:8080: it begins with http://'),
        ([*NEEDED, '--root', 'gone'], '--root gone is no folder'),
        ([*NEEDED, '--bank', './tuned.safetensors'], 'must be another file than --bank'),
    ],
)
def test_mistakes_on_the_command_line(args, message, capsys):
    with pytest.raises(SystemExit):
        parse_args(args)
    assert message in capsys.readouterr().err


def test_address_and_token_may_be_in_the_environment(monkeypatch):
    monkeypatch.setenv('LABEL_STUDIO_URL', 'http://studio:8080')
    monkeypatch.setenv('LABEL_STUDIO_API_KEY', 'abc')
    options = parse_args(NEEDED)
    assert (options.url, options.api_key) == ('http://studio:8080', 'abc')
    assert parse_args([*NEEDED, '--api-key', 'x']).api_key == 'x'


def test_without_flask_one_line_says_what_to_install(monkeypatch, capsys):
    genuine = builtins.__import__

    def without(name, *args, **kwargs):
        if name == 'waitress':
            raise ModuleNotFoundError("No module named 'waitress'", name='waitress')
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    assert main(NEEDED) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('label_studio: the backend needs flask and waitress: pip install')


def test_a_file_that_is_missing_ends_in_one_line(tiny_files, capsys, tmp_path):
    pytest.importorskip('flask')
    pytest.importorskip('waitress')
    args = [*tiny_files, '--save-bank', str(tmp_path / 't'), '--device', 'cpu', '--port', '0']
    assert main([*args, '--bank', 'gone.safetensors']) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('label_studio: ') and 'gone.safetensors' in last


@pytest.mark.slow
def test_it_serves_until_it_is_interrupted(tiny_files, tmp_path):
    pytest.importorskip('flask')
    pytest.importorskip('waitress')
    saved = str(tmp_path / 'tuned.safetensors')
    command = [sys.executable, '-m', 'mmdet_dino_r1.tools.label_studio', *tiny_files]
    server = subprocess.Popen(
        [*command, '--save-bank', saved, '--port', '0', '--host', '0.0.0.0', '--device', 'cpu'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore interrupts, and so would their children
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = next(line for line in server.stdout if line.startswith('Enter http'))
        port = re.search(r':(\d+)/ in Label Studio', line)[1]
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=120) as answer:
            assert b'"status":"UP"' in answer.read()
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=120)
        assert server.returncode == 0
        assert 'whoever reaches 0.0.0.0 can use this backend; there is no password' in err
    finally:
        server.kill()
