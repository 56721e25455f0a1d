"""What every tool does around its work."""

import argparse

import pytest

from mmdet_dino_r1.utils.command_line import (
    add_model,
    add_out_file,
    one_line_errors,
    refuse_existing,
)


@one_line_errors
def main(args):
    if args:
        raise args[0]
    return 1


def test_bad_input_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.delenv('RANK', raising=False)
    assert main([]) == 1
    assert main([ValueError('no box')]) == 2
    assert capsys.readouterr().err == 'test_command_line: no box\n'
    monkeypatch.setenv('RANK', '1')
    assert main([FileNotFoundError('gone')]) == 2
    assert capsys.readouterr().err == 'test_command_line (process 1): gone\n'
    with pytest.raises(KeyError):  # a mistake of ours
        main([KeyError('x')])


def test_shared_arguments(tmp_path):
    parser = argparse.ArgumentParser()
    add_model(parser)
    add_out_file(parser, '.onnx')
    out = tmp_path / 'x.onnx'
    args = ['c.py', 'w.pth', '--out', str(out), '--cfg-options', 'a.b=1']
    options = parser.parse_args(args)
    assert (options.config, options.checkpoint, options.out) == ('c.py', 'w.pth', out)
    assert options.cfg_options == {'a.b': 1} and options.device is None
    refuse_existing(options)
    out.touch()
    with pytest.raises(FileExistsError, match='x.onnx exists; --overwrite replaces it'):
        refuse_existing(options)
    refuse_existing(parser.parse_args([*args, '--overwrite']))


def test_an_option_of_the_config_without_a_value(capsys):
    parser = argparse.ArgumentParser()
    add_model(parser)
    with pytest.raises(SystemExit):
        parser.parse_args('c.py w.pth --cfg-options lr = 1'.split())
    assert 'error: --cfg-options takes KEY=VALUE, without' in capsys.readouterr().err
