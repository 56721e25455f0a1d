import json

import cv2
import pytest

from mmdet_dino_r1.lab.training.log import read_run
from mmdet_dino_r1.tools.plot_training import main, parse_args


def write_log(folder, rows) -> None:
    path = folder / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def step(number: int, **values) -> dict:
    return dict(step=number, loss=3.0, loss_cls=1.0, loss_bbox=0.5, loss_iou=0.3) | values


def val(ap: float) -> dict:
    return {'coco/bbox_mAP': ap, 'step': 0}


def test_validations_get_the_iteration_before_them(tmp_path):
    write_log(tmp_path / 'a', [step(10), val(0.1), step(20), val(0.2)])
    rows = read_run(tmp_path)
    assert [row['step'] for row in rows] == [10, 10, 20, 20]
    assert [row.get('coco/bbox_mAP') for row in rows] == [None, 0.1, None, 0.2]
    for path in (tmp_path / 'a', tmp_path / 'a' / 'vis_data' / 'scalars.json'):
        assert read_run(path) == rows


def test_a_resumed_training_is_one_curve(tmp_path):
    write_log(tmp_path / '1', [step(10, lr=1), val(0.1), step(20, lr=1), step(30, lr=1), val(0.9)])
    write_log(tmp_path / '2', [step(20, lr=2), val(0.2), step(30, lr=2)])
    write_log(tmp_path / '3', [val(0.5)])  # a test
    rows = read_run(tmp_path)
    assert [(row['step'], row.get('lr')) for row in rows] == [
        (10, 1),
        (10, None),
        (20, 2),
        (20, None),
        (30, 2),
    ]
    assert [row['coco/bbox_mAP'] for row in rows if 'lr' not in row] == [0.1, 0.2]


def test_a_training_begun_anew_replaces_the_one_before(tmp_path):
    write_log(tmp_path / '1', [step(10), step(20)])
    write_log(tmp_path / '2', [step(10, lr=2)])
    assert read_run(tmp_path) == [step(10, lr=2)]


def test_two_runs_in_one_picture(tmp_path, capsys):
    grqo = dict(grqo_reward_mean=-2.0, grqo_reward_std=1.0, grqo_kl=0.1)
    write_log(tmp_path / 'sft' / '1', [step(10), step(20), val(0.2)])
    write_log(tmp_path / 'grqo' / '1', [step(10, **grqo), step(20, **grqo), val(0.3)])
    out = tmp_path / 'deep' / 'curves.png'
    runs = [str(tmp_path / 'sft'), str(tmp_path / 'grqo')]
    assert main([*runs, '--labels', 'SFT,GRQO', '--out', str(out)]) == 0
    assert capsys.readouterr().out == f'wrote {out}\n'
    assert cv2.imread(str(out)).std() > 5


def test_names_of_runs(tmp_path):
    out = ['--out', str(tmp_path / 'x.png')]
    assert parse_args(['w/a', 'w/b', *out]).labels == ['a', 'b']
    assert parse_args(['a/run', 'b/run', *out]).labels == ['a/run', 'b/run']
    with pytest.raises(SystemExit):
        parse_args(['w/a', 'w/b', '--labels', 'one', *out])


@pytest.mark.parametrize(
    ('content', 'reason'), [(None, 'holds no log of a training'), ('{"loss": 1', 'line 1, is not')]
)
def test_what_cannot_be_read(tmp_path, capsys, content, reason):
    if content:
        write_log(tmp_path / '1', [])
        (tmp_path / '1' / 'vis_data' / 'scalars.json').write_text(content)
    assert main([str(tmp_path), '--out', str(tmp_path / 'x.png')]) == 2
    assert reason in capsys.readouterr().err
