import pytest

from mmdet_dino_r1.lab.benchmark.scaling import FACTORS, exponents, vary


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
    ('factor', 'value', 'expected'),
    [
        ('queries', 5, (64, 96, 2, 5, 3, 5, 30)),
        ('queries', 20, (64, 96, 2, 5, 3, 20, 30)),
        ('classes', 1, (64, 96, 2, 1, 3, 10, 30)),
        ('classes', 45, (64, 96, 2, 45, 3, 10, 45)),
        ('size', 0.25, (32, 64, 2, 5, 3, 10, 30)),  # multiples of 32: 48 becomes 64
        ('size', 4, (128, 192, 2, 5, 3, 10, 30)),
        ('batch', 1, (64, 96, 1, 5, 3, 10, 30)),
        ('batch', 3, (64, 96, 3, 5, 3, 10, 30)),
        ('boxes', 1, (64, 96, 2, 5, 1, 10, 30)),
        ('boxes', 9, (64, 96, 2, 5, 9, 10, 30)),
    ],
)
def test_one_size_varies(cfg, workload, factor, value, expected):
    changed, of = vary(factor, value, cfg, workload)
    sizes = (of.height, of.width, of.batch_size, of.classes, of.boxes)
    assert sizes + (changed.model.num_queries, changed.model.bbox_head.num_classes) == expected
    assert cfg.model.num_queries == 10 and factor in FACTORS


@pytest.mark.parametrize(
    ('factor', 'value', 'message'),
    [
        ('queries', 200, '64x96 has 126 tokens, too few for 200 queries.*num_queries=63'),
        ('size', 0.01, '32x32 has 21 tokens, too few for 30 queries'),
    ],
)
def test_too_many_queries_for_the_image(cfg, workload, factor, value, message):
    cfg.model.num_queries = 30
    with pytest.raises(ValueError, match=message):
        vary(factor, value, cfg, workload)
