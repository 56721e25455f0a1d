"""The command line of the detector."""

import json

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from mmdet_dino_r1 import load_prompt_bank
from mmdet_dino_r1.apis import DINOR1Inferencer, Reference
from mmdet_dino_r1.tools.detect import main, parse_args

REQUIRED = ['c.py', 'w.pth', '--input', 'in', '--out', 'out']


@pytest.fixture
def tiny(tmp_path, tiny_files):
    """Command line with a tiny model and a folder of two images, without prompts."""
    (tmp_path / 'in').mkdir()
    for index in (0, 1, 2):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / ('in' if index else '.') / f'{index}.png'), pixels)
    options = f'--input {tmp_path}/in --out {tmp_path}/out --score-thr 0 --device cpu'
    return [*tiny_files, *options.split()]


def test_each_box_belongs_to_the_reference_before_it():
    options = parse_args(
        [*REQUIRED, '--ref', 'a', '--box', '1,2,3,4:cat', '--box', '5,6,7,8:hot dog: big']
        + ['--ref', 'b', '--box', '1.5,2:owl', '--distractor', 'owl', '--negative', 'cat']
    )
    assert options.references == [
        ('a', [([1, 2, 3, 4], 'cat'), ([5, 6, 7, 8], 'hot dog: big')]),
        ('b', [([1.5, 2], 'owl')]),
    ]
    assert options.distractor == ['owl', 'cat']
    assert parse_args([*REQUIRED, '--bank', 'b']).references == []  # not shared between calls


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ([], 'give --ref and --box, or --bank'),
        (['--box', '1,2,3,4:cat'], "--box 'cat' stands before any --ref"),
        (['--ref', 'a', '--ref', 'b', '--box', '1,2,3,4:cat'], '--ref a has no --box'),
        (['--ref', 'a', '--box', '1,2,3:cat'], 'is not "x1,y1,x2,y2:name"'),
        (['--ref', 'a', '--box', '1,2,3,4'], 'is not "x1,y1,x2,y2:name"'),
        (['--bank', 'b', '--score-thr', '30'], 'a score from 0 to 1'),
        (['--bank', 'b', '--top-k', '0'], '--top-k must be at least 1'),
    ],
)
def test_mistakes_on_the_command_line(more, message, capsys):
    with pytest.raises(SystemExit):
        parse_args([*REQUIRED, *more])
    assert message in capsys.readouterr().err


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        parse_args(['--help'])
    said = capsys.readouterr().out
    assert 'examples:' in said and '--distractor cat' in said


def test_a_run_equals_the_inferencer(tmp_path, tiny, capsys):
    reference = [
        '--ref',
        str(tmp_path / '0.png'),
        '--box',
        '4,4,30,30:cat',
        '--box',
        '9,9,50,60:dog',
    ]
    bank = tmp_path / 'made' / 'bank.safetensors'
    assert main([*tiny, *reference, '--save-bank', str(bank), '--top-k', '2']) == 0
    said = capsys.readouterr().out
    assert 'cat 4, dog 4' in said and 'highest score' not in said
    assert sorted(p.name for p in (tmp_path / 'out/vis').iterdir()) == ['1.jpg', '2.jpg']
    coco = COCO(tmp_path / 'out/predictions.json')
    assert [image['file_name'] for image in coco.dataset['images']] == ['1.png', '2.png']

    inferencer = DINOR1Inferencer(tiny[0], tiny[1], 'cpu')
    made = inferencer.set_prompts(
        [Reference(tmp_path / '0.png', [[4, 4, 30, 30], [9, 9, 50, 60]], ['cat', 'dog'])]
    )
    torch.testing.assert_close(load_prompt_bank(bank).embeddings, made.embeddings)
    found = inferencer(tmp_path / 'in', score_thr=0, top_k=2)['predictions']
    scores = [a['score'] for a in coco.dataset['annotations']]
    assert scores == pytest.approx([s for of_image in found for s in of_image['scores']], abs=5e-6)


def test_a_threshold_above_all_scores_is_pointed_out(tmp_path, tiny, capsys):
    reference = ['--ref', str(tmp_path / '0.png'), '--box', '4,4,30,30:cat']
    more = ['--box', '9,9,50,60:dog', '--no-pictures', '--score-thr', '1']
    assert main([*tiny, *reference, *more]) == 0
    said = capsys.readouterr().out
    inferencer = DINOR1Inferencer(tiny[0], tiny[1], 'cpu')
    boxes = [[4, 4, 30, 30], [9, 9, 50, 60]]
    inferencer.set_prompts([Reference(tmp_path / '0.png', boxes, ['cat', 'dog'])])
    every = inferencer(tmp_path / 'in', score_thr=0)
    for name, best in every['best_scores'].items():
        assert best == max(
            score
            for found in every['predictions']
            for score, of in zip(found['scores'], found['class_names'], strict=True)
            if of == name
        )
        assert f'{name} {best:.2f}' in said
    assert 'below --score-thr 1:' in said


def test_a_bank_a_distractor_and_a_broken_image(tmp_path, tiny, capsys):
    bank = tmp_path / 'bank.safetensors'
    reference = ['--ref', str(tmp_path / '0.png')]
    first = [*reference, '--box', '4,4,30,30:cat', '--save-bank', str(bank), '--no-pictures']
    assert main([*tiny, *first]) == 0
    assert not (tmp_path / 'out/vis').exists()
    (tmp_path / 'in' / '1.png').write_bytes(b'no image')
    further = [
        '--bank',
        str(bank),
        *reference,
        '--box',
        '9,9,50,60:dog',
        '--negative',
        'cat',
        '--overwrite',
    ]
    assert main([*tiny, *further]) == 1
    assert (
        'detect: left out: ' in (err := capsys.readouterr().err) and '1.png cannot be read' in err
    )
    coco = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [category['name'] for category in coco['categories']] == ['dog']
    assert [image['file_name'] for image in coco['images']] == ['2.png']
    smooth = ['--score-thr', '0', '--cfg-options', 'model.test_cfg.negatives.temperature=1']
    hard = coco['annotations']
    main([*tiny, *further, *smooth])
    soft = json.loads((tmp_path / 'out/predictions.json').read_text())['annotations']
    assert len(soft) > len(hard) and {each['category_id'] for each in soft} == {1}


def test_mistakes_end_in_one_line(tmp_path, tiny, capsys):
    reference = ['--ref', str(tmp_path / '0.png')]
    for more, message in (
        ([*reference, '--box', '4,4,90,30:cat'], 'reaches outside the image'),
        (
            [*reference, '--box', '4,4,30,30:cat', '--distractor', 'owl'],
            "no prompt of the distractor 'owl'",
        ),
        (['--ref', 'gone.png', '--box', '4,4,30,30:cat'], 'There is no image gone.png'),
        (['--bank', 'gone.safetensors'], 'gone.safetensors'),
        (
            [*reference, '--box', '4,4,30,30:cat', '--input', 'gone.jpg', 'gone'],
            'no image could be read',
        ),
        ([*reference, '--box', '4,4,30,30:cat', '--device', 'gpu'], "The device 'gpu' cannot be"),
    ):
        assert main([*tiny, *more]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith('detect: ') and message in last
    assert [path.name for path in (tmp_path / 'out').rglob('*.*')] == ['run.json']
