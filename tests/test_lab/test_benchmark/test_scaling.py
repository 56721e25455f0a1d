import pytest
import torch

from mmdet_dino_r1.lab.benchmark import scaling
from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, build_contender
from mmdet_dino_r1.lab.benchmark.scaling import (
    FACTORS,
    UNITS,
    denoising_queries,
    exponents,
    faster_than_linear,
    last_exponent,
    make_points,
    scale,
)
from mmdet_dino_r1.lab.benchmark.workload import Workload

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    ('values', 'figures', 'expected'),
    [
        ([1, 2, 4], [3, 3, 6], [0, 1]),
        ([1, 10, 100], [1, 100, 1000], [2, 1]),
        ([0.25, 0.5, 2], [8, 2, 2 * 4**1.5], [-2, 1.5]),
        ([7], [1], []),
    ],
)
def test_exponents_by_hand(values, figures, expected):
    assert exponents(values, figures) == pytest.approx(expected)


@pytest.mark.parametrize(
    ('values', 'figures', 'expected'),
    [
        ([1, 2, 4], [1, 1, 4], 2),
        ([1, 50, 90, 100], [9, 1, 1000, 4], 2),  # from 50, the last at most half of 100
        ([6, 8, 9], [1, 7, 1.5], 1),  # from the first
    ],
)
def test_growth_over_the_last_doubling(values, figures, expected):
    assert last_exponent(values, figures) == pytest.approx(expected)


def test_what_is_named_as_growing_faster():
    results = dict(
        queries=dict(values=[1, 2, 4], seconds=[1, 9, 10], memory=[1, 1, 3]),
        batch=dict(values=[1, 2, 4], seconds=[1, 2, 4.2], memory=None),  # exponent 1.07
        boxes=dict(values=[1, 2], seconds=[1, 1], memory=[0, 5]),  # not to be measured
        prompts=dict(values=[1, 2], seconds=[1, 1], memory=None, inference_seconds=[1, 8]),
    )
    assert faster_than_linear(results) == [
        'memory with queries (exponent 1.58)',
        'inference time with prompts (exponent 3.00)',
    ]


def sizes(points):
    return [
        (p.workload.height, p.workload.width, p.workload.batch_size, p.workload.classes)
        + (p.workload.boxes, p.cfg.model.num_queries, p.cfg.model.bbox_head.num_classes)
        for p in points
    ]


@pytest.mark.parametrize(
    ('factor', 'values', 'shown', 'expected'),
    [
        (
            'queries',
            (5, 20),
            [5, 20],
            [(64, 96, 2, 5, 3, 5, 30), (64, 96, 2, 5, 3, 20, 30)],
        ),
        (
            'prompts',
            (1, 45),
            [1, 45],
            [(64, 96, 2, 1, 23, 10, 45), (64, 96, 2, 45, 23, 10, 45)],
        ),
        (
            'size',
            (0.25, 4),
            [0.032 * 0.064, 0.128 * 0.192],
            # sides in multiples of 32: 48 becomes 64
            [(32, 64, 2, 5, 3, 10, 30), (128, 192, 2, 5, 3, 10, 30)],
        ),
        ('batch', (1, 3), [1, 3], [(64, 96, 1, 5, 3, 10, 30), (64, 96, 3, 5, 3, 10, 30)]),
        ('boxes', (1, 9), [1, 9], [(64, 96, 2, 5, 1, 10, 30), (64, 96, 2, 5, 9, 10, 30)]),
    ],
)
def test_one_size_varies(cfg, workload, factor, values, shown, expected):
    points = make_points(factor, values, cfg, workload)
    assert [point.value for point in points] == pytest.approx(shown)
    assert sizes(points) == expected
    assert cfg.model.num_queries == 10


def test_every_factor_has_points_and_a_unit(cfg):
    cfg.model.num_queries = 900
    for factor, values in FACTORS.items():
        assert list(values) == sorted(values)
        assert len(make_points(factor, values, cfg, Workload(800, 1333))) == len(values)
    assert FACTORS.keys() == UNITS.keys()


@pytest.mark.parametrize(
    ('factor', 'values', 'message'),
    [
        ('queries', (10, 200), '64x96 has 126 tokens, too few for 200 queries.*num_queries=63'),
        ('size', (0.01, 1), '32x32 has 21 tokens, too few for 30 queries'),
    ],
)
def test_too_many_queries_for_the_image(cfg, workload, factor, values, message):
    cfg.model.num_queries = 30
    with pytest.raises(ValueError, match=message):
        make_points(factor, values, cfg, workload)


def measure(factor, values, cfg, workload, memory=False):
    return scale(factor, values, cfg, workload, CPU, torch.float32, False, 1, memory)


@pytest.mark.parametrize('factor', ['queries', 'boxes', 'prompts'])
def test_points_are_measured(cfg, workload, factor):
    result = measure(factor, (4, 8), cfg, workload)
    assert result['unit'] == UNITS[factor] and result['values'] == [4, 8]
    assert len(result['seconds']) == 2 and min(result['seconds']) > 0
    assert result['memory'] is None
    assert ('denoising_queries' in result) == (factor == 'boxes')
    assert len(result.get('inference_seconds', [])) == (2 if factor == 'prompts' else 0)


def test_memory_is_what_a_step_takes_beside_what_is_kept(cfg, workload, monkeypatch):
    seen = []

    def peak(name, config, size, *_):
        seen.append((name, size.boxes))
        return dict(peak=10.0 + size.boxes, kept=4.0)

    monkeypatch.setattr(scaling, 'peak_memory', peak)
    assert measure('boxes', (1, 2), cfg, workload, memory=True)['memory'] == [7, 8]
    assert seen == [(DINO_R1, 1), (DINO_R1, 2)]


def test_denoising_queries_are_those_of_the_generator(cfg, workload):
    # 8 denoising queries, 3 boxes: two groups of a positive and a negative query per box
    contender = build_contender(DINO_R1, cfg, CPU, torch.float32, False)
    assert denoising_queries(contender, workload) == 2 * 2 * 3
