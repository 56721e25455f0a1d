"""Detect in images what boxes show; ``mim run mmdet_dino_r1 detect --help`` has examples."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmdet_dino_r1 import apis
from mmdet_dino_r1.structures import save_prompt_bank
from mmdet_dino_r1.utils.command_line import add_model, one_line_errors
from mmdet_dino_r1.utils.near_names import some

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

writes OUT/vis/*.jpg and OUT/predictions.json: a COCO data set whose annotations have a score.
Status 0: done; 1: done, but some images could not be read; 2: nothing was done.
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
    add('--input', nargs='+', required=True, metavar='PATH', help='folders, images and URLs')
    add('--out', type=Path, required=True, help='folder to write to')
    add('--score-thr', type=float, default=0.3, help='lowest score (default %(default)s)')
    add('--top-k', type=int, help='most detections per class and image')
    add('--batch-size', type=int, default=1, help='images at once (default %(default)s)')
    add('--save-bank', metavar='FILE', help='write the prompts: *.safetensors')
    add('--no-pictures', action='store_true', help='write predictions.json only')
    options = parser.parse_args(args)
    if not 0 <= options.score_thr <= 1:
        parser.error('--score-thr is a score from 0 to 1; only the drawn ones are in per cent')
    if options.top_k is not None and options.top_k < 1:
        parser.error('--top-k must be at least 1')
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
    inferencer = apis.DINOR1Inferencer(
        options.config, options.checkpoint, options.device, cfg_options=options.cfg_options
    )
    references = [
        apis.Reference(path, *zip(*boxes, strict=True)) for path, boxes in options.references
    ]
    bank = inferencer.set_prompts(references, options.bank, options.distractor)
    if options.save_bank:
        save_prompt_bank(bank, options.save_bank)
    results = inferencer(
        options.input[0] if len(options.input) == 1 else options.input,
        options.batch_size,
        score_thr=options.score_thr,
        top_k=options.top_k,
        skip_broken=True,
        out_dir=None if options.no_pictures else options.out,
    )
    for message in results['broken'].values():
        print(f'detect: left out: {message}', file=sys.stderr)
    if all(found is None for found in results['predictions']):
        raise ValueError('no image could be read; nothing is written.')
    coco = apis.to_coco(results, root=common_folder(options.input))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / 'predictions.json'
    path.write_text(json.dumps(coco, ensure_ascii=False), encoding='utf-8')
    print(
        f'{path}: {len(coco["annotations"])} detections in {len(coco["images"])} images, '
        f'{time.perf_counter() - start:.1f} s'
    )
    counts = Counter({name: 0 for name in results['classes']})
    for found in filter(None, results['predictions']):
        counts.update(found['class_names'])
    print(some([f'{name} {count}' for name, count in counts.most_common()]))
    best = results['best_scores']
    if missed := [f'{name} {best[name]:.2f}' for name, count in counts.items() if not count]:
        print(
            f'highest score, all below --score-thr {options.score_thr:g}: {some(missed)}. '
            'Scores are not calibrated: try a lower --score-thr.'
        )
    return 1 if results['broken'] else 0


def common_folder(inputs: Sequence[str]) -> Path | None:
    """The folder that all inputs lie in; None where there are only URLs.

    File names of the JSON are relative to it: importers look for them in a folder of images, and
    some refuse absolute ones.
    """
    paths = [Path(item).absolute() for item in inputs if '://' not in item]
    folders = [path if path.is_dir() else path.parent for path in paths]
    return Path(os.path.commonpath(folders)) if folders else None


if __name__ == '__main__':
    sys.exit(main())
