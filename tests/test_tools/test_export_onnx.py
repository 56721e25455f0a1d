"""The command line of the export, and the example of its page; see also ``test_apis``."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmdet_dino_r1.apis.export import MIN_TORCH
from mmdet_dino_r1.structures import PromptBank, save_prompt_bank
from mmdet_dino_r1.tools import export_onnx as tool
from mmdet_dino_r1.tools.export_onnx import main, read_image
from mmdet_dino_r1.utils.compat import torch_version

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'export.md'


@pytest.fixture
def tiny(tmp_path, tiny_files):
    """Command line for a tiny model; the bank says that it is of other weights."""
    bank = PromptBank(('cat', 'dog', 'owl'), torch.randn(3, 256), dict(weights='of another'))
    save_prompt_bank(bank, tmp_path / 'bank.safetensors')
    pixels = np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'image.png')
    out = ['--bank', str(tmp_path / 'bank.safetensors'), '--out', str(tmp_path / 'model.onnx')]
    return [*tiny_files, *out, '--size', '64', '96']


@pytest.mark.slow
@pytest.mark.skipif(torch_version() < MIN_TORCH, reason='ONNX export needs PyTorch 2.6')
def test_a_real_export_its_check_and_the_example_of_the_page(tmp_path, tiny, capsys, monkeypatch):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    image, out = tmp_path / 'image.png', tmp_path / 'model.onnx'
    assert main([*tiny, '--check', str(image)]) == 0
    captured = capsys.readouterr()
    assert f'{out}: 3 classes, images of 64 x 96 (H x W), weights ' in captured.out
    assert f'same as PyTorch on {image}: boxes differ by at most ' in captured.out
    (warning,) = [line for line in captured.err.splitlines() if 'warning' in line]
    assert warning.startswith(
        'export_onnx: warning: The prompt bank was made with the weights of another, the model has'
    )

    text = PAGE.read_text(encoding='utf-8')
    (example,) = re.findall(r'<!-- run by [^>]*-->\n```python\n(.*?)```', text, re.S)
    imported = re.findall(r'^(?:import|from) (\w+)', example, re.M)
    assert imported == ['json', 'numpy', 'onnxruntime', 'PIL']
    Image.open(image).save(tmp_path / 'image.jpg')
    monkeypatch.chdir(tmp_path)
    # an untrained model is sure of nothing
    exec(example.replace('score > 0.3', 'score > -1'), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert all(re.match(r'(cat|dog|owl) \d\.\d\d \[', line) for line in lines)


@pytest.fixture
def calls(monkeypatch):
    """Stands in for what is slow; keeps what it was called with."""
    received = []

    def export(model, bank, out, size, **options):
        received.append((model, len(bank), size, options))
        out.write_bytes(b'')
        return dict(image_size=size, weights='w')

    monkeypatch.setattr(tool, 'load_detector', lambda *given: given)
    monkeypatch.setattr(tool, 'export_onnx', export)
    return received


def test_every_option_arrives(tiny, calls):
    more = '--num-detections 7 --opset 20 --cfg-options model.test_cfg.nms=None'.split()
    assert main([*tiny, *more]) == 0
    model = (tiny[0], tiny[1], {'model.test_cfg.nms': None})
    assert calls == [(model, 3, [64, 96], dict(num_detections=7, opset=20))]


def test_an_existing_file_is_refused_before_any_work(tmp_path, tiny, calls, capsys):
    out = tmp_path / 'model.onnx'
    out.touch()
    assert main(tiny) == 2
    assert capsys.readouterr().err == f'export_onnx: {out} exists; --overwrite replaces it.\n'
    assert calls == []
    assert main([*tiny, '--overwrite']) == 0


def test_mistakes_end_in_one_line(tmp_path, tiny, monkeypatch, capsys):
    def fails_with(args, message):
        assert main(args) == 2
        err = capsys.readouterr().err
        assert err.splitlines()[-1].startswith('export_onnx: ') and message in err

    monkeypatch.setattr('mmdet_dino_r1.apis.export._need', lambda *packages: None)
    monkeypatch.setattr('mmdet_dino_r1.apis.export.torch_version', lambda: MIN_TORCH)
    fails_with([*tiny, '--check', str(tmp_path / 'gone.png')], 'gone.png')
    fails_with([*tiny, '--check', tiny[1]], 'cannot identify image file')
    fails_with([*tiny, '--bank', 'gone.safetensors'], 'no prompt bank gone.safetensors')
    fails_with([tiny[0], 'gone.pth', *tiny[2:]], 'no checkpoint gone.pth')
    fails_with(['gone.py', *tiny[1:]], "ships no config 'gone.py'")
    padding = 'model.data_preprocessor.pad_size_divisor=7'
    fails_with([*tiny, '--cfg-options', padding], 'pad_size_divisor=7: the graph does not pad')
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'onnx', None)
    fails_with(tiny, 'pip install "mmdet_dino_r1[onnx]"')
    assert not (tmp_path / 'model.onnx').exists()


def test_an_image_becomes_rgb_of_the_size(tmp_path):
    Image.new('RGB', (10, 20), (255, 0, 0)).save(tmp_path / 'red.png')
    image = read_image(tmp_path / 'red.png', (8, 6))
    assert image.shape == (1, 3, 8, 6) and image.dtype == np.uint8
    assert image[0, :, 0, 0].tolist() == [255, 0, 0]
