import pytest

from mmdet_dino_r1.lab.benchmark.scaling import FACTORS, exponents, make_points
from mmdet_dino_r1.lab.benchmark.workload import Workload


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


def sizes(points):
    return [
        (of.height, of.width, of.batch_size, of.classes)
        + (of.boxes, cfg.model.num_queries, cfg.model.bbox_head.num_classes)
        for cfg, of in points.values()
    ]


@pytest.mark.parametrize(
    ('factor', 'values', 'expected'),
    [
        (
            'queries',
            (5, 20),
            [(64, 96, 2, 5, 3, 5, 30), (64, 96, 2, 5, 3, 20, 30)],
        ),
        (
            'prompts',
            (1, 45),
            [(64, 96, 2, 1, 23, 10, 45), (64, 96, 2, 45, 23, 10, 45)],
        ),
        (
            'size',
            (0.25, 4),
            # sides in multiples of 32: 48 becomes 64
            [(32, 64, 2, 5, 3, 10, 30), (128, 192, 2, 5, 3, 10, 30)],
        ),
        ('batch', (1, 3), [(64, 96, 1, 5, 3, 10, 30), (64, 96, 3, 5, 3, 10, 30)]),
        ('boxes', (1, 9), [(64, 96, 2, 5, 1, 10, 30), (64, 96, 2, 5, 9, 10, 30)]),
    ],
)
def test_one_size_varies(cfg, workload, factor, values, expected):
    points = make_points(factor, values, cfg, workload)
    assert tuple(points) == values
    assert sizes(points) == expected
    assert cfg.model.num_queries == 10


def test_every_factor_has_points(cfg):
    cfg.model.num_queries = 900
    for factor, values in FACTORS.items():
        assert list(values) == sorted(values)
        assert len(make_points(factor, values, cfg, Workload(800, 1333))) == len(values)


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
