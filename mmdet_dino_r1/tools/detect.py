"""Detect in images what boxes show; ``python -m mmdet_dino_r1.tools.detect --help``: examples."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import barrier, get_dist_info

from mmdet_dino_r1 import apis
from mmdet_dino_r1.apis.detection_parts import PartFolder, Summary
from mmdet_dino_r1.apis.detection_run import DetectionRun, Interrupted, what_is_asked
from mmdet_dino_r1.apis.image_list import read_image_list
from mmdet_dino_r1.structures import save_prompt_bank
from mmdet_dino_r1.utils.command_line import (
    add_launcher,
    add_model,
    launched,
    one_line_errors,
    positive,
)
from mmdet_dino_r1.utils.near_names import some
from mmdet_dino_r1.utils.progress import bar_of_steps, lines_of_steps

_EXAMPLES = """\
examples:
  two references, one class from both of them, another from the second:
    detect CONFIG CHECKPOINT --ref a.jpg --box "10,20,80,90:cat" --box "200,40,260,90:cat" \\
        --ref b.jpg --box "5,5,60,70:cat" --box "90,10,150,70:dog" --input photos --out found

  a prompt bank, and a further class; the cat only competes and is not given out:
    detect CONFIG CHECKPOINT --bank animals.safetensors --ref owl.jpg --box "30,30,70,90:owl" \\
        --distractor cat --input photos --out found

  what looks more like the cat scores lower, instead of being left out (docs/inference.md):
    detect CONFIG CHECKPOINT --bank animals.safetensors --distractor cat --input photos \\
        --out found --cfg-options model.test_cfg.negatives.temperature=1

  a point (x,y), which becomes a small square; boxes are what the weights were trained with:
    detect CONFIG CHECKPOINT --ref a.jpg --box "45,55:cat" --input photos --out found

  a folder tree on all GPUs; the same command goes on after a kill (docs/labelling.md):
    torchrun --nproc_per_node 8 -m mmdet_dino_r1.tools.detect CONFIG CHECKPOINT --no-pictures \\
        --bank animals.safetensors --input photos --recursive --out found --launcher pytorch

writes OUT/vis/*.jpg, OUT/parts/*.jsonl as it goes and in the end OUT/predictions.json: a COCO data
set whose annotations have a score.
Status 0: done; 1: done, but the images in OUT/unreadable.txt could not be read (0 with --launcher);
2: nothing was done; 3: stopped before the end, the same command goes on.
"""


class _ReferenceAction(argparse.Action):
    """Opens a reference with ``--ref``; ``--box`` adds to the last one."""

    def __call__(self, parser, namespace, value, option_string=None) -> None:
        references = getattr(namespace, self.dest)
        if option_string == '--ref':
            references = [*references, (value, [])]
        elif not references:
            parser.error(f'--box {value[1]!r} stands before any --ref; each belongs to the --ref.')
        else:
            path, boxes = references[-1]
            references = [*references[:-1], (path, [*boxes, value])]
        setattr(namespace, self.dest, references)


def box_and_name(text: str) -> tuple[list[float], str]:
    """Read 'x1,y1,x2,y2:name' or, a point, 'x,y:name'; ArgumentTypeError: it is neither."""
    numbers, colon, name = text.partition(':')
    try:
        box = [float(number) for number in numbers.split(',')]
    except ValueError:
        box = []
    if len(box) not in (2, 4) or not name.strip():
        raise argparse.ArgumentTypeError(
            f'{text!r} is not "x1,y1,x2,y2:name" (or, for a point, "x,y:name")'
        )
    return box, name.strip()


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='detect',
        description='Detect in images what boxes show; no data set is needed.',
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    add = parser.add_argument
    ordered = dict(action=_ReferenceAction, dest='references')
    add('--ref', **ordered, default=[], metavar='IMAGE', help='reference image; may be repeated')
    add(
        '--box',
        **ordered,
        type=box_and_name,
        metavar='X1,Y1,X2,Y2:NAME',
        help='box in the --ref before it, in pixels, and its class; may be repeated',
    )
    add('--bank', help='prompt bank; with --ref, these add classes')
    add(
        '--distractor',
        '--negative',  # until 0.8
        action='append',
        default=[],
        metavar='NAME',
        help='class that only competes: what looks more like it is left out; may be repeated',
    )
    inputs = 'folders, images, URLs, videos, *.tar; *.txt with a path or URL per line; COCO *.json'
    add('--input', nargs='+', required=True, metavar='PATH', help=inputs)
    add('--recursive', action='store_true', help='also the folders in a folder')
    add('--img', help='image folder of a COCO *.json (default: the one it lies in)')
    add('--stride', type=positive, default=1, help='take every so many-th frame of a video')
    add('--out', type=Path, required=True, help='folder to write to')
    add('--overwrite', action='store_true', help='forget what is finished in --out')
    retry = 'do those parts again that had images which could not be read'
    add('--retry-unreadable', action='store_true', help=retry)
    add('--score-thr', type=float, default=0.3, help='lowest score (default %(default)s)')
    add('--top-k', type=int, help='most detections per class and image')
    add('--batch-size', type=positive, default=1, help='images at once (default %(default)s)')
    part = 'images of which the results are written at once (default %(default)s)'
    add('--part-size', type=positive, default=100, help=part)
    reading = 'processes that read images, 0: none (default %(default)s)'
    add('--workers', type=int, default=2, help=reading)
    add('--save-bank', metavar='FILE', help='write the prompts: *.safetensors')
    add('--no-pictures', action='store_true', help='write no drawn images')
    add_launcher(parser)
    options = parser.parse_args(args)
    if not 0 <= options.score_thr <= 1:
        parser.error('--score-thr is a score from 0 to 1; only the drawn ones are in per cent')
    if options.top_k is not None and options.top_k < 1:
        parser.error('--top-k must be at least 1')
    if options.workers < 0:
        parser.error('--workers must be at least 0')
    if not options.references and options.bank is None:
        parser.error('nothing shows what to look for: give --ref and --box, or --bank')
    for path, boxes in options.references:
        if not boxes:
            parser.error(f'--ref {path} has no --box after it')
    return options


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    start = time.perf_counter()
    run, rank, world = prepare(options)
    began = time.perf_counter()
    try:
        run(rank, world, (bar_of_steps() or lines_of_steps()) if rank == 0 else None)
        if missing := run.folder.missing():
            print(f'detect: process {rank} is done; others do the last {len(missing)} parts')
            return 0
        if rank and run.folder.result.exists():
            return 0  # another process was the last one and joined them
        summary = run.folder.join()
    except (Interrupted, OSError) as error:
        left, number = len(run.folder.missing()), run.folder.number
        kept = f'{number - left} of {number} parts are finished and kept; the same command goes on.'
        print(f'detect: {error}. {kept}', file=sys.stderr)
        return 3
    if run.images_done:
        seconds = time.perf_counter() - began
        waiting = f'waiting for images {run.seconds_waited / seconds:.0%} of the time'
        print(f'{run.images_done / seconds:.1f} images/s, {waiting}')
    print(f'{run.folder.result}: {summary.described()}, {time.perf_counter() - start:.1f} s')
    tell_classes(summary, options.score_thr)
    tell_unreadable(summary, run.folder.unreadable)
    return 1 if summary.unreadable and options.launcher == 'none' else 0


def prepare(options: argparse.Namespace) -> tuple[DetectionRun, int, int]:
    """The run, begun in its folder; and as which process of how many it is to be done.

    Raises:
        ValueError: ``--out`` lies in what is searched for images, or has another run's results; see
            :func:`read_image_list` and :class:`DINOR1Inferencer` for more.
    """
    out = options.out.resolve()
    if options.recursive and any(
        Path(each).resolve() in (out, *out.parents) for each in options.input
    ):
        raise ValueError(
            f'--out {options.out} lies in an --input: with --recursive its drawn images would be '
            'detected in.'
        )
    images = read_image_list(options.input, options.recursive, options.img, options.stride)
    with launched('detect', options.launcher, options.device):
        inferencer = apis.DINOR1Inferencer(
            options.config, options.checkpoint, options.device, cfg_options=options.cfg_options
        )
        references = [
            apis.Reference(path, *zip(*boxes, strict=True)) for path, boxes in options.references
        ]
        bank = inferencer.set_prompts(references, options.bank, options.distractor)
        asked = what_is_asked(inferencer, images, references)
        own = ('part_size', 'score_thr', 'top_k')
        folder = PartFolder(options.out, asked | {name: getattr(options, name) for name in own})
        rank, world = get_dist_info()
        if rank == 0:
            folder.begin(options.overwrite, options.retry_unreadable)
            if options.save_bank:
                save_prompt_bank(bank, options.save_bank)
        barrier()
        folder.refuse_another()
    run = DetectionRun(
        inferencer,
        images,
        folder,
        options.batch_size,
        options.score_thr,
        options.top_k,
        workers=min(options.workers, len(images)),
        pictures=None if options.no_pictures else options.out / 'vis',
    )
    return run, rank, world


def tell_classes(summary: Summary, score_thr: float) -> None:
    """Print how much of each class was found, and which classes only the threshold hides."""
    print(some([f'{name} {count}' for name, count in summary.counts.most_common()]))
    best = summary.best_scores
    if missed := [f'{name} {best[name]:.2f}' for name, n in summary.counts.items() if not n]:
        print(
            f'highest score, all below --score-thr {score_thr:g}: {some(missed)}. '
            'Scores are not calibrated: try a lower --score-thr.'
        )


def tell_unreadable(summary: Summary, path: Path, most: int = 10) -> None:
    """Print the first of the images that could not be read, and where all of them are listed."""
    messages = list(summary.unreadable.values())
    for message in messages[:most]:
        print(f'detect: left out: {message}', file=sys.stderr)
    if len(messages) > most:
        print(f'detect: left out: {len(messages)} images in all, see {path}', file=sys.stderr)


if __name__ == '__main__':
    status = main()
    if status == 3:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # a reader that hangs, on a lost mount say, is not waited for
    sys.exit(status)
