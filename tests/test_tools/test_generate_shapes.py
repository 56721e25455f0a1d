import json

import pytest

from mmdet_dino_r1.tools.generate_shapes import main

TINY = (
    '--image-size 32 --num-base-classes 2 --num-novel-classes 1 --train-images 3 '
    '--val-images 1 --val-novel-images 1 --prompts-novel-images 1 --workers 1'
).split()


def test_makes_the_set_and_counts_it(tmp_path, capsys):
    assert main([str(tmp_path), *TINY]) == 0
    out, err = capsys.readouterr()
    coco = json.loads((tmp_path / 'annotations' / 'train.json').read_text())
    row = next(line for line in out.splitlines() if line.startswith('train'))
    assert row.split()[1:4] == ['3', '2', str(len(coco['annotations']))]
    assert 'made in' in out
    assert err.endswith('6/6 images\n')
    assert coco['info']['config']['image_size'] == 32


def test_second_run_says_there_is_nothing_to_do(tmp_path, capsys):
    main([str(tmp_path), *TINY])
    capsys.readouterr()
    assert main([str(tmp_path), *TINY]) == 0
    out, err = capsys.readouterr()
    assert 'already there, nothing to do' in out
    assert err == ''


def test_other_settings_need_overwrite(tmp_path, capsys):
    main([str(tmp_path), *TINY])
    capsys.readouterr()
    assert main([str(tmp_path), *TINY, '--seed', '5']) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert main([str(tmp_path), *TINY, '--seed', '5', '--overwrite']) == 0
    coco = json.loads((tmp_path / 'annotations' / 'train.json').read_text())
    assert coco['info']['config']['seed'] == 5


def test_difficulty_by_name(tmp_path, capsys):
    def difficulty():
        coco = json.loads((tmp_path / 'annotations' / 'train.json').read_text())
        return coco['info']['config']['difficulty']

    assert main([str(tmp_path), *TINY, '--difficulty', 'hard']) == 0
    assert difficulty()['near_duplicates'] == 0.25
    assert difficulty()['distractors'] == [0, 2]
    assert difficulty()['objects_per_image'] == [2, 9]
    assert main([str(tmp_path), *TINY]) == 2  # 'standard' is another set
    assert '--overwrite' in capsys.readouterr().err
    assert main([str(tmp_path), *TINY, '--difficulty', 'standard', '--overwrite']) == 0
    assert difficulty()['objects_per_image'] == [2, 8]
    assert 'near_duplicates' not in difficulty()
    with pytest.raises(SystemExit):
        main([str(tmp_path), '--difficulty', 'easy'])
    err = capsys.readouterr().err
    assert "invalid choice: 'easy'" in err and 'hard' in err and 'standard' in err


@pytest.mark.parametrize(
    'option, message',
    [
        ('--image-size', 'ShapesConfig.image_size must be at least 32, got 0'),
        ('--num-base-classes', 'ShapesConfig.num_base_classes must be at least 1, got 0'),
    ],
)
def test_values_out_of_range_are_named(tmp_path, capsys, option, message):
    assert main([str(tmp_path), option, '0']) == 2
    assert message in capsys.readouterr().err
