import json

import pytest

from mmdet_dino_r1.tools.benchmark_table import main

PROTOCOL = dict(
    name='visual_g',
    shots=16,
    fewest=16,
    seed=0,
    source='data/train.json',
    detections_per_image=300,
    chunk_size=0,
)


def write(root, config, metrics, time='20250101_000000', **changes):
    """The record of a test; ``changes`` are of its protocol."""
    path = root / config / time / 'metrics' / 'test.json'
    path.parent.mkdir(parents=True)
    record = dict(
        config=config,
        checkpoint='best.pth',
        weights='ab12',
        protocol=PROTOCOL | changes,
        metrics=metrics,
        versions={},
    )
    path.write_text(json.dumps(record))
    return path


def odinw(count, value):
    """Metrics of a group of datasets."""
    values = {f'set{index}/coco/bbox_mAP': value for index in range(count)}
    return values | {'mean/coco/bbox_mAP': value, 'mean/coco/bbox_mAP_50': value}


def run(args, tmp_path):
    """Exit status and the lines of the table's file."""
    status = main([*map(str, args), '--out', str(tmp_path / 'new/out')])
    return status, (tmp_path / 'new/out/benchmark_table.md').read_text().splitlines()


def test_scores_lowered_by_negatives_are_not_placed(tmp_path, capsys):
    config = 'dino_r1_swin_t_zeroshot_coco'
    write(tmp_path, config, {'coco/bbox_mAP': 0.243})
    lowered = write(tmp_path, config, {'coco/bbox_mAP': 0.3}, 'later', negatives=dict(nearest=1))
    _, lines = run([tmp_path], tmp_path)
    assert any('| DINO-R1-T | 24.3 [1]' in line for line in lines)
    assert lines[-1].endswith(
        f"negatives lower its scores (model.test_cfg.negatives: {{'nearest': 1}}); {lowered}"
    )


def test_golden_table(tmp_path, capsys):
    root = tmp_path / 'work'
    coco = write(root, 'dino_r1_swin_t_zeroshot_coco', {'coco/bbox_mAP': 0.243})
    lvis = write(
        root,
        'vis_gdino_swin_l_zeroshot_lvis_minival',
        {
            f'lvis_fixed_ap/AP{g}': v
            for g, v in zip(['', *'rcf'], [0.1844, 0.16, -1, 0.2], strict=True)
        },
        chunk_size=40,
        fewest=1,
    )
    odinw13 = write(root, 'dino_r1_swin_t_odinw13', odinw(13, 0.05), source='differs', datasets={})
    status, lines = run([root], tmp_path)
    assert status == 0
    assert lines == [
        '| model | COCO 0-shot (measured) | COCO 0-shot (paper) '
        '| LVIS-minival Fixed AP (r/c/f) (measured) | LVIS-minival Fixed AP (r/c/f) (paper) '
        '| ODinW13 (measured) | ODinW13 (paper) | ODinW35 (measured) | ODinW35 (paper) '
        '| COCO fine-tuned (measured) | COCO fine-tuned (paper) |',
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |',
        '| VIS-GDINO-T | – | 19.9 | – | 15.3 (11.8/15.6/17.1) | – | 4.6 | – | 2.6 | – | 32.5 |',
        '| VIS-GDINO-B | – | 24.8 | – | 17.1 (12.5/16.4/18.9) | – | 11.2 | – | 6.7 | – | 38.1 |',
        '| VIS-GDINO-L | – | 26.1 | 18.4 (16.0/–/20.0) [2] | 18.4 (15.9/17.8/20.3) | – | 15.3 '
        '| – | 8.2 | – | 39.2 |',
        '| DINO-R1-T | 24.3 [1] | 24.0 | – | 17.4 (14.1/17.9/20.8) | 5.0 [3] | 5.0 | – | 3.0 | – '
        '| 37.2 / 39.6 |',
        '| DINO-R1-B | – | 26.1 | – | 19.0 (15.9/19.4/21.2) | – | 14.7 | – | 7.2 | – '
        '| 41.3 / 42.4 |',
        '| DINO-R1-L | – | 28.1 | – | 20.1 (17.8/19.8/23.4) | – | 24.1 | – | 12.6 | – '
        '| 43.5 / 44.1 |',
        '',
        'Box AP in points of 100, visual prompts by protocol Visual-G.',
        '',
        '- [1] dino_r1_swin_t_zeroshot_coco, checkpoint best.pth (ab12): N = 16 exemplars per '
        'class (fewest 16), seed 0, from data/train.json; 300 detections per image; '
        f'{coco}',
        '- [2] vis_gdino_swin_l_zeroshot_lvis_minival, checkpoint best.pth (ab12): N = 16 '
        'exemplars per class (fewest 1), seed 0, from data/train.json; 300 detections per image, '
        f'in chunks of 40 classes; {lvis}',
        '- [3] dino_r1_swin_t_odinw13, checkpoint best.pth (ab12): N = 16 exemplars per class '
        '(fewest 16), seed 0, from the training split of each dataset; 300 detections per image; '
        f'mean over 13 datasets; {odinw13}',
    ]
    printed = capsys.readouterr().out
    assert printed.startswith('\n'.join(lines))


def test_newest_of_a_cell_counts_and_the_others_are_named(tmp_path):
    config = 'dino_r1_swin_b_coco'
    old = write(tmp_path / 'z', config, {'coco/bbox_mAP': 0.5}, time='20250101_000000')
    write(tmp_path / 'a', config, {'coco/bbox_mAP': 0.4}, time='20250201_000000')
    _, lines = run([tmp_path / 'a', tmp_path / 'z'], tmp_path)
    assert '| 40.0 [1] | 41.3 / 42.4 |' in lines[6]
    assert lines[-1] == f'  Older, not shown: 50.0, {old}'


def test_what_has_no_place_is_listed(tmp_path):
    root = tmp_path / 'work'
    write(root, 'dino_r1_r18_shapes', {'coco/bbox_mAP': 0.49})
    write(root, 'dino_r1_swin_t_odinw35', odinw(34, 0.03))
    write(root, 'dino_r1_swin_t_coco', {'coco/bbox_mAP': None})
    write(root, 'dino_r1_swin_b_coco', {'coco/bbox_mAP': 0.4}, name='text')
    given_away = write(
        root, 'dino_r1_swin_t_zeroshot_coco', {'coco/bbox_mAP': 0.6}, name='visual_i'
    )
    _, lines = run([root], tmp_path)
    assert not any('[1]' in line for line in lines)
    at = lines.index('Not placed:')
    assert [line.rpartition(';')[0] for line in lines[at + 2 :]] == [
        '- dino_r1_r18_shapes: coco/bbox_mAP 49.0; its config is not one of the paper; place it '
        'by MODEL:BENCHMARK=FOLDER',
        '- dino_r1_swin_b_coco: coco/bbox_mAP 40.0; its protocol is text, not visual_g',
        '- dino_r1_swin_t_coco: coco/bbox_mAP –; it has no coco/bbox_mAP',
        '- dino_r1_swin_t_odinw35: mean/coco/bbox_mAP 3.0; its mean is over 34 of 35 datasets',
    ]
    assert 'give away which classes' in lines[at - 4]
    assert lines[at - 2] == f'- dino_r1_swin_t_zeroshot_coco: coco/bbox_mAP 60.0; {given_away}'


def test_a_place_by_hand(tmp_path):
    root = tmp_path / 'work'
    path = write(root, 'mine', {'coco/bbox_mAP': 0.3})
    _, lines = run([root, f'dino_r1_l:coco={root / "mine"}'], tmp_path)
    assert lines[7].startswith('| DINO-R1-L | 30.0 [1] | 28.1 |')
    assert lines[-1].endswith(f'; {path}')  # once, although found twice
    assert 'Not placed:' not in lines


def test_benchmark_that_the_paper_lacks(tmp_path):
    write(tmp_path / 'work', 'dino_r1_swin_t_lvis', {'lvis_fixed_ap/AP': 0.2})
    _, lines = run([tmp_path / 'work'], tmp_path)
    assert lines[0].endswith(
        '| LVIS val Fixed AP (r/c/f) (measured) | LVIS val Fixed AP (r/c/f) (paper) |'
    )
    assert lines[5].endswith('| 20.0 (–/–/–) [1] | – |')


def fails(args, capsys):
    assert main([str(arg) for arg in args]) == 2
    captured = capsys.readouterr()
    assert captured.out == '' and captured.err.count('\n') == 1
    return captured.err


def test_bad_input(tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    assert 'empty holds no <timestamp>/metrics/test.json; test first: mim test' in fails(
        [tmp_path / 'empty'], capsys
    )
    assert 'nowhere holds no' in fails([tmp_path / 'nowhere'], capsys)
    assert "'dino_r1_x' is not one of vis_gdino_t" in fails(['dino_r1_x:coco=there'], capsys)
    assert "'kitti' is not one of coco, lvis_minival" in fails(['dino_r1_t:kitti=there'], capsys)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"config":', 'test.json is not JSON'),
        ('[]', "test.json has no 'config'"),
        ('{"config": "x", "metrics": {}}', "test.json has no 'protocol'"),
        (
            '{"config": "x", "protocol": {}, "metrics": {}}',
            "test.json has no 'name' in its protocol",
        ),
        ('{"config": "x", "protocol": {"name": "visual_g"}}', "test.json has no 'metrics'"),
    ],
)
def test_broken_records_are_named(tmp_path, capsys, text, message):
    path = write(tmp_path, 'dino_r1_swin_t_coco', {})
    path.write_text(text)
    assert message in fails([tmp_path], capsys)
