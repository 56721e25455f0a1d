import pytest

from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, MMDET, NAMES, VIS_GDINO
from mmdet_dino_r1.lab.benchmark.imports import IMPORTED_BEFORE
from mmdet_dino_r1.lab.benchmark.report import TARGETS, Target, assess_all, table, to_markdown


def training(step, **phases):
    return dict(
        step=step, images_per_second=2 / step, phases=phases, parameters=40_500_000, note=''
    )


@pytest.fixture
def sections():
    seconds = {VIS_GDINO: 1.1, DINO_R1: 1.5, MMDET: 2.0}
    results = dict(
        training={
            name: training(step, forward=step / 4, backward=step / 2)
            for name, step in seconds.items()
        },
        memory={DINO_R1: dict(peak=9.0, kept=1.0), MMDET: dict(peak=10.0, kept=2.0)},
        inference={DINO_R1: {'80': 0.4, '1203': 0.5}, MMDET: {'80': 0.5, '1203': 5.0}},
        bank=dict(images_per_second=2.5, exemplars_per_second=25.0),
    )
    results['training'][DINO_R1]['phases']['reference'] = 0.25
    results['training'][MMDET]['note'] = 'a stub'
    results['import'] = {case: dict(before=3.0, added=0.15) for case in IMPORTED_BEFORE}
    return results


def test_targets_by_hand(sections):
    told = assess_all(sections)
    assert len(told) == len(TARGETS) == 8
    assert [each['value'] for each in told] == pytest.approx(
        [0.75, 0.55, 1.5 / 1.1, 0.9, 0.8, 10.0, 0.15, 0.15]
    )
    assert [each['met'] for each in told] == [True, True, False, False, True, True, True, True]
    assert [each['target'] for each in told] == (
        ['≤ 0.75', '≤ 0.6', '≤ 1.25', '≤ 0.8', '≤ 0.8', '≥ 8', '≤ 0.2 s', '≤ 0.2 s']
    )


def test_what_was_not_measured_is_left_out(sections):
    del sections['training'][MMDET], sections['memory'], sections['inference']
    assert [each['value'] for each in assess_all(sections)] == pytest.approx(
        [1.5 / 1.1, 0.15, 0.15]
    )
    assert assess_all({}) == []


def test_a_target_may_be_a_least_figure():
    target = Target('speed', ('a',), ('b',), 8, at_least=True)
    assert target.assess(dict(a=16, b=2))['met']
    assert not target.assess(dict(a=15, b=2))['met']


def report_of(sections):
    return dict(
        environment=dict(device='CPU', torch='2'),
        settings=dict(image='64x96'),
        sections=sections,
        targets=assess_all(sections),
        left_out=[],
    )


def cells_of(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f'| {start} |')]
    return [cell.strip() for cell in line.strip('|').split('|')][1:]


def test_the_table(sections):
    text = to_markdown(report_of(sections))
    assert text.startswith('# Benchmark\n\n- device: CPU\n- torch: 2\n- image: 64x96\n')
    assert f'|  | {" | ".join(NAMES)} |' in text
    assert cells_of(text, 'step, s') == ['1.100', '1.500', '2.000']
    assert cells_of(text, '… reference') == ['–', '0.250', '–']
    assert '… optimiser' not in text
    assert cells_of(text, 'images/s') == ['1.82', '1.33', '1.00']
    assert cells_of(text, 'parameters, millions') == ['40.5'] * 3
    assert cells_of(text, 'step / mmdet') == ['0.55', '0.75', '1.00']
    assert cells_of(text, 'step / VIS-GDINO') == ['1.00', '1.36', '1.82']
    assert cells_of(text, 'training step, DINO-R1 / mmdet') == ['0.75', '≤ 0.75', 'met']
    assert cells_of(text, 'training step, DINO-R1 / VIS-GDINO')[2] == '**missed**'
    assert cells_of(text, 'import mmdet') == ['3.00', '0.15']
    assert "mmdet Grounding DINO's language model: a stub." in text
    assert '2.50 images/s, 25.0 exemplars/s' in text


def test_the_table_of_one_model(sections):
    text = to_markdown(report_of(dict(training={DINO_R1: sections['training'][DINO_R1]})))
    assert cells_of(text, 'step, s') == ['1.500'] and '## Targets' not in text
    assert 'step / ' not in text


def test_scaling():
    grown = dict(
        unit='boxes per image',
        values=[1, 2, 4],
        seconds=[1.0, 1.0, 2.0],
        memory=[0.0, 1.0, 1.0],
        denoising_queries=[100, 100, 400],
    )
    text = to_markdown(report_of(dict(scaling=dict(boxes=grown))))
    assert cells_of(text, '4') == ['2', '1.00', '1', '–', '400', '2.00']
    assert cells_of(text, '1') == ['1', '–', '0', '–', '100', '–']
    assert 'Nothing grows faster than linearly.' in text
    steep = dict(grown, seconds=[1.0, 1.0, 4.0])
    text = to_markdown(report_of(dict(scaling=dict(boxes=steep))))
    assert (
        'Faster than linear over the last doubling: step time with boxes (exponent 2.00).' in text
    )


@pytest.mark.parametrize('step', [None, 0.5])
def test_loader(step):
    loaders = {
        '0': dict(seconds_per_batch=0.1, images_per_second=80.0),
        '2': dict(seconds_per_batch=0.05, images_per_second=160.0),
    }
    if step is not None:
        loaders['0'] |= dict(waiting=0.1667, keeps_up=False)
        loaders['2'] |= dict(waiting=0.0, keeps_up=True)
    parts = dict(LoadImageFromFile=0.004, Resize=0.001, PackDetInputs=0.002, annotations=0.001)
    figures = dict(
        batch_size=8,
        configured=2,
        step=step,
        loaders=loaders,
        pipeline=parts,
        exemplar_pipeline=parts,
    )
    text = to_markdown(report_of(dict(loader=figures)))
    verdicts = [[], []] if step is None else [['17 %', '**no**'], ['0 %', 'yes']]
    assert cells_of(text, '0') == ['0.1000', '80.0', *verdicts[0]]
    assert cells_of(text, '2') == ['0.0500', '160.0', *verdicts[1]]
    assert cells_of(text, 'training') == ['4.00', '1.00', '3.00', '8.00', 'LoadImageFromFile']


def test_what_memory_was_too_small_for(sections):
    report = dict(report_of(sections), left_out=['training', 'scaling of batch'])
    text = to_markdown(report)
    assert 'Left out, the GPU has too little memory: training, scaling of batch.' in text


def test_a_table_in_markdown():
    assert table(['a', 'b'], [['1', '2']]) == '| a | b |\n| --- | --- |\n| 1 | 2 |'
