"""Write the detector for one prompt bank as an ONNX file: ``mim run mmdet_dino_r1 export_onnx``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmdet_dino_r1.apis.export import OPSET, check_onnx, export_onnx, load_detector
from mmdet_dino_r1.models.detectors import DINOR1
from mmdet_dino_r1.structures import PromptBank, load_prompt_bank
from mmdet_dino_r1.utils.command_line import (
    add_model,
    add_out_file,
    one_line_errors,
    refuse_existing,
)


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='export_onnx',
        description='Write config, checkpoint and the classes of a prompt bank as one ONNX file.',
    )
    add_model(parser, device=False)
    add_out_file(parser, '.onnx')
    add = parser.add_argument
    add('--bank', type=Path, required=True, help='prompt bank of these weights')
    add(
        '--size',
        nargs=2,
        type=int,
        required=True,
        metavar=('H', 'W'),
        help='height and width of the images, in pixels; fixed in the file',
    )
    add('--num-detections', type=int, metavar='N', help="per image (default: the config's)")
    add(
        '--opset', type=int, default=OPSET, help="version of ONNX's operators (default %(default)s)"
    )
    compared = 'compare onnxruntime with PyTorch on this image, scaled to --size'
    add('--check', type=Path, metavar='IMAGE', help=compared)
    return parser.parse_args(args)


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    for name in ('onnxscript', 'torch.onnx'):  # they tell of every constant that they leave alone
        logging.getLogger(name).setLevel(logging.ERROR)
    start = time.perf_counter()
    refuse_existing(options)
    # before anything is built
    images = None if options.check is None else read_image(options.check, options.size)
    bank = load_prompt_bank(options.bank)
    model = load_detector(options.config, options.checkpoint, options.cfg_options)
    try:
        written = _export(options, model, bank)
        size, seconds = options.out.stat().st_size / 1024**2, time.perf_counter() - start
        height, width = written['image_size']
        print(
            f'{options.out}: {len(bank)} classes, images of {height} x {width} (H x W), weights '
            f'{written["weights"]}; {size:.1f} MiB, {seconds:.0f} s'
        )
        if images is not None:
            differ = check_onnx(options.out, model, bank, images)
            print(
                f'same as PyTorch on {options.check}: boxes differ by at most {differ.boxes:.1g} '
                f'pixels, scores by {differ.scores:.1g}'
            )
    except ImportError as error:  # of the extra
        raise ValueError(error) from error
    return 0


def _export(options: argparse.Namespace, model: DINOR1, bank: PromptBank) -> dict:
    """Write the file, and print our own warnings alone; returns the metadata."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('ignore')  # PyTorch's exporter warns of itself
        warnings.filterwarnings('always', message='The prompt bank')
        written = export_onnx(
            model,
            bank,
            options.out,
            options.size,
            num_detections=options.num_detections,
            opset=options.opset,
        )
    for warning in caught:
        print(f'export_onnx: warning: {warning.message}', file=sys.stderr)
    return written


def read_image(path: Path, size: Sequence[int]) -> np.ndarray:
    """(1, 3, H, W) uint8 RGB of the file at ``path``, scaled to ``size`` (H, W)."""
    from PIL import Image

    height, width = size
    image = Image.open(path).convert('RGB').resize((width, height))
    return np.asarray(image).transpose(2, 0, 1)[None]


if __name__ == '__main__':
    sys.exit(main())
