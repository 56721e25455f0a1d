import pytest

from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, LATE, MMDET, VIS_GDINO
from mmdet_dino_r1.lab.benchmark.measure import PEAK, STEP
from mmdet_dino_r1.lab.benchmark.report import TARGETS, assess_all, to_markdown, told


@pytest.fixture
def sections():
    seconds = {VIS_GDINO: 1.1, DINO_R1: 1.5, MMDET: 2.0}
    training = {
        name: {STEP: step, '… forward, s': step / 4, 'parameters, millions': 40.5}
        for name, step in seconds.items()
    }
    training[DINO_R1]['… reference, s'] = 0.25
    training[MMDET]['language model'] = 'a stub'
    return dict(
        training=training,
        memory={DINO_R1: {PEAK: 9.0}, MMDET: {PEAK: 10.0}},
        inference={
            DINO_R1: {'80 classes, s': 0.4, '1203 classes, s': 0.5},
            LATE: {'80 classes, s': 0.2, '1203 classes, s': 0.25},
            MMDET: {'80 classes, s': 0.5, '1203 classes, s': 5.0},
        },
        bank={DINO_R1: {'images/s': 2.5, 'boxes/s': 25.0}},
    )


def test_targets_by_hand(sections):
    rows = assess_all(sections)
    assert len(rows) == len(TARGETS) == 8
    assert [row['measured'] for row in rows] == pytest.approx(
        [0.75, 0.55, 1.5 / 1.1, 0.9, 0.8, 10.0, 20.0, 1.25]
    )
    met, missed = 'met', '**missed**'
    assert [row['reached'] for row in rows] == [met, met, *[missed] * 2, met, met, *[missed] * 2]
    assert [row['target'] for row in rows] == (
        ['≤ 0.75', '≤ 0.6', '≤ 1.25', '≤ 0.8', '≤ 0.8', '≥ 8', '≥ 25', '≤ 1.15']
    )
    assert [row['ratio'] for row in rows][-2:] == [
        f'one image, 1203 classes, {MMDET} / {LATE}',
        f'one image, 1203 / 80 classes, {LATE}',
    ]


def test_what_was_not_measured_is_left_out(sections):
    del sections['training'][MMDET], sections['memory'], sections['inference']
    assert [row['measured'] for row in assess_all(sections)] == pytest.approx([1.5 / 1.1])
    assert assess_all({}) == []


@pytest.mark.parametrize(('seconds', 'reached'), [(4.0, 'met'), (3.75, '**missed**')])
def test_a_target_may_be_a_least_figure(seconds, reached):
    figures = {MMDET: {'1203 classes, s': seconds}, DINO_R1: {'1203 classes, s': 0.5}}
    assert [row['reached'] for row in assess_all(dict(inference=figures))] == [reached]


def cells_of(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f'| {start} |')]
    return [cell.strip() for cell in line.strip('|').split('|')][1:]


def test_a_report(sections):
    shown = dict(targets=assess_all(sections)) | sections
    text = to_markdown('Benchmark', dict(device='CPU', image='64x96'), shown)
    assert text.startswith(
        '# Benchmark\n\n- device: CPU\n- image: 64x96\n\n## Targets\n\n| ratio |'
    )
    assert f'| {VIS_GDINO} | {DINO_R1} | {MMDET} |' in text
    assert cells_of(text, 'step, s') == ['1.1', '1.5', '2']
    assert cells_of(text, '… forward, s') == ['0.275', '0.375', '0.5']
    assert cells_of(text, '… reference, s') == ['–', '0.25', '–']
    assert cells_of(text, 'parameters, millions') == ['40.5'] * 3
    assert cells_of(text, 'language model') == ['–', '–', 'a stub']
    assert cells_of(text, PEAK) == ['9', '10']
    assert cells_of(text, '1203 classes, s') == ['0.5', '0.25', '5']
    assert cells_of(text, f'training step, DINO-R1 / {MMDET}') == ['0.75', '≤ 0.75', 'met']
    assert cells_of(text, 'training step, DINO-R1 / VIS-GDINO') == ['1.36', '≤ 1.25', '**missed**']
    assert cells_of(text, 'boxes/s') == ['25']


def test_rows_lists_and_what_failed():
    rows = [dict(boxes=1, exponent=None), dict(boxes=2, exponent=0.456789, late=12345.6)]
    figures = dict(said='x', many=[1, 2.5], none=[], loss=dict(a=1e-7), rows=rows)
    text = to_markdown('Check', {}, dict(stage=figures), failed=['stage: broken'])
    assert '**Failed:**\n\n- stage: broken' in text
    assert '## Stage\n\n- said: x\n- many: 1, 2.5\n- none: none\n\n### loss\n\n- a: 1e-07' in text
    assert cells_of(text, '1') == ['–', '–'] and cells_of(text, '2') == ['0.457', '12346']
    assert told(None) == '–'
