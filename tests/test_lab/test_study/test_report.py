import json

import pytest

from mmdet_dino_r1.lab.study.grid import Comparison, Grid, Variant
from mmdet_dino_r1.lab.study.plot import draw_report
from mmdet_dino_r1.lab.study.report import build_report, to_markdown

TITLES = dict(sft='VIS-GDINO', grqo='DINO-R1', heavy='weight 10', gone='not run')
LOGGED = dict(grqo_grad_share=0.0004, grqo_grad_cosine=0.02, grqo_kl=1.5, grqo_reward_mean=-2.0)


def run(variant, seed, ap, recall=0.5, minutes=2.0):
    return dict(
        variant=variant,
        seed=seed,
        steps=300,
        train_seconds=60 * minutes,
        versions=dict(torch='2.6'),
        device='CPU',
        data={'data/hard': dict(pixels='cd')},
        training={} if variant == 'sft' else LOGGED,
        metrics={
            'base/g1': dict(AP=0.1, AP50=0.2),
            'base/g16': dict(AP=ap / 100, AP50=2 * ap / 100),
        },
        diagnostics=dict(base=dict(num_images=50, recall=recall)),
    )


@pytest.fixture
def grid():
    return Grid(
        name='made up v1',
        variants={name: Variant(name, title, 'some.py', {}) for name, title in TITLES.items()},
        comparisons=[
            Comparison('Does it help?', 'sft', ('grqo', 'gone'), 3),
            Comparison(
                'Which weight?',
                'sft',
                ('grqo', 'heavy'),
                1,
                dict(label='weight', values=dict(sft=0, grqo=1, heavy=10), log=True),
            ),
        ],
        evaluations={'base/g1': {}, 'base/g16': {}},
        primary=['base/g16'],
        common={},
        diagnostics=(),
        shapes={},
    )


@pytest.fixture
def results():
    runs = dict(
        sft={seed: run('sft', seed, ap) for seed, ap in enumerate((10, 20, 30))},
        # differences 4, 5, 6; recall +0.1 in all
        grqo={
            seed: run('grqo', seed, ap, 0.6, minutes)
            for seed, (ap, minutes) in enumerate([(14, 3), (25, 9), (36, 4)])
        },
        heavy={0: run('heavy', 0, 8)},
    )
    return runs, ['older/seed_3']


def rows_of(text, heading):
    """Cells of the first table below a heading."""
    lines = text.split(f'{heading}\n', 1)[1].strip().splitlines()
    lines = lines[: lines.index('')] if '' in lines else lines
    return [[variant.strip() for variant in line.strip('|').split('|')] for line in lines]


def test_the_head(grid, results):
    text = to_markdown(build_report(grid, *results))
    assert text.startswith(
        '# made up v1\n\n- seeds: 0, 1, 2\n- steps: 300\n- device: CPU\n'
        '- data, data/hard, pixels: cd\n- torch: 2.6\n- **Missing, variants:** not run (`gone`).\n'
        '- Left alone, of no variant of this grid: older/seed_3.\n\n'
    )
    # one interval: grqo to sft, shown by two comparisons; one seed alone has none
    assert 'about 0.1 of the 1 intervals of AP' in text


def test_the_table_of_a_comparison(grid, results):
    text = to_markdown(build_report(grid, *results))
    head, _, *rows = rows_of(text, '## Does it help?')
    assert head[1:] == [
        'seeds',
        'steps',
        'minutes of training (median)',
        'base/g16, AP',
        'to baseline [95 %]',
    ]
    # 4.303 / sqrt(3) = 2.484
    assert rows == [
        ['VIS-GDINO (baseline)', '3', '300', '2.0', '20.00 ± 10.00', '–'],
        ['DINO-R1', '3', '300', '4.0', '25.00 ± 11.00', '+5.00 [+2.52, +7.48] **higher**'],
        ['not run', '**missing**', '–', '–', '–', '–'],
    ]
    rows = rows_of(text, '## Which weight?')
    assert rows[-1][4:] == ['8.00', '-2.00 (one seed, no interval)']


def test_the_other_tables(grid, results):
    text = to_markdown(build_report(grid, *results))
    assert rows_of(text, '### AP')[0] == ['', 'seeds', 'base/g1', 'base/g16']
    assert rows_of(text, '### AP')[3] == ['DINO-R1', '3', '10.00 ± 0.00', '25.00 ± 11.00']
    assert rows_of(text, '### AP50')[2:] == [
        ['VIS-GDINO', '3', '20.00 ± 0.00', '40.00 ± 20.00'],
        ['DINO-R1', '3', '20.00 ± 0.00', '50.00 ± 22.00'],
        ['weight 10', '1', '20.00', '16.00'],
        ['not run', '**missing**', '–', '–'],
    ]
    assert rows_of(text, '## Training')[2:] == [
        ['VIS-GDINO', '3', '–', '–', '–', '–', '–'],
        ['DINO-R1', '3', '0.04 ± 0', '0.02 ± 0', '1.5 ± 0', '-2 ± 0', '–'],
        ['weight 10', '1', '0.04', '0.02', '1.5', '-2', '–'],
        ['not run', '**missing**', '–', '–', '–', '–', '–'],
    ]
    assert rows_of(text, '## What the queries do: Does it help?')[2:] == [
        ['recall', 'VIS-GDINO (baseline)', '0.500 ± 0.000', '–'],
        ['recall', 'DINO-R1', '0.600 ± 0.000', '+0.100 [+0.100, +0.100] **higher**'],
        ['recall', 'not run', '–', '–'],
    ]


def test_what_is_not_finished_is_named(grid, results):
    runs = results[0]
    del runs['grqo'][0]
    runs['grqo'][1] = runs['grqo'][1] | dict(metrics={}, device='GPU')
    text = to_markdown(build_report(grid, *results))
    assert '- **Missing, seeds:** `grqo` 0.' in text
    assert '- **Missing, evaluations:** `grqo/seed_1` base/g1, base/g16.' in text
    assert '- device: CPU (5 runs); GPU (1 run)\n' in text
    assert '- **Not the same in all runs: device.**' in text
    row = rows_of(text, '## Does it help?')[3]
    assert row[4:] == ['36.00 (n = 1)', '+6.00 (one seed, no interval)']
    runs['sft'] = {7: run('sft', 7, 10)}
    text = to_markdown(build_report(grid, *results))
    assert rows_of(text, '## Does it help?')[3][4:] == ['36.00 (n = 1)', 'no seed in common']


def test_a_study_that_has_not_begun(grid):
    report = build_report(grid, {}, [])
    text = to_markdown(report)
    assert '- seeds: –\n' in text and text.count('**missing**') == 3 + 3 + 3 * 4
    assert 'by chance' not in text and 'What the queries do' not in text
    assert draw_report(report) == {}


def test_json_has_the_same_numbers(grid, results):
    report = json.loads(json.dumps(build_report(grid, *results), allow_nan=False))
    first, second = (comparison['variants'] for comparison in report['comparisons'])
    told = first['grqo']['evaluations']['base/g16']
    values = told['summary'].pop('values')
    assert told['summary'] == pytest.approx(dict(mean=25, std=11, n=3))
    assert list(values) == ['0', '1', '2'] and sum(values.values()) == pytest.approx(75)
    assert told['difference']['values'] == pytest.approx([4, 5, 6])
    assert told['difference']['low'] == pytest.approx(2.516, abs=5e-4)
    assert (told['difference']['seeds'], told['difference']['verdict']) == ([0, 1, 2], 'higher')
    told = second['heavy']['evaluations']['base/g16']
    assert told['summary']['std'] is told['difference']['low'] is None
    assert report['variants']['gone']['minutes'] is None
    assert report['variants']['grqo']['training']['grqo_grad_share']['mean'] == pytest.approx(0.04)
    assert report['provenance']['data, data/hard, pixels'] == dict(cd=7)


def test_the_plots(grid, results):
    images = draw_report(build_report(grid, *results))
    assert list(images) == [
        'comparison_1_differences',
        'comparison_1_exemplars',
        'comparison_2_differences',
        'comparison_2_axis',
        'comparison_2_exemplars',
    ]
