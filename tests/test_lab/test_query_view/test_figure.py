import numpy as np
import pytest

from mmdet_dino_r1.lab.query_view.figure import draw_queries, draw_rewards
from mmdet_dino_r1.lab.query_view.view import QueryRewards, QueryView

IMAGE = np.full((48, 64, 3), 128, np.uint8)


def view_of(seed: int = 0, layers: int = 2, truth: bool = True, num_gts: int = 3) -> QueryView:
    """Random boxes and scores of 20 queries and 8 prompts; 13 queries are kept."""
    draw = np.random.default_rng(seed)
    shape = (layers + 1, 20)
    rewards = QueryRewards(
        gt_boxes=np.tile([0.5, 0.5, 0.4, 0.3], (num_gts, 1)),
        gt_prompts=np.arange(num_gts) % 8,
        rewards=draw.normal(size=shape) * (num_gts > 0),
        advantages=draw.normal(size=shape) * (np.arange(20) < 13),
        matches=np.full(shape, -1),
        num_kept=13,
    )
    return QueryView(
        1,
        '1.png',
        tuple(f'class {i}' for i in range(8)),
        draw.uniform(0.2, 0.8, (*shape, 4)),
        draw.uniform(0, 1, (*shape, 8)),
        rewards if truth else None,
    )


def has_colour(figure: np.ndarray, colour: tuple) -> bool:
    return bool((np.abs(figure.astype(int) - colour).max(axis=-1) < 12).any())


def test_a_row_for_each_model_and_a_column_for_each_stage():
    one = draw_queries(IMAGE, {'SFT': view_of(truth=False)})
    assert one.dtype == np.uint8 and one.shape[2] == 3 and one.std() > 5
    two = draw_queries(IMAGE, {'SFT': view_of(truth=False), 'GRQO': view_of(1, truth=False)})
    assert two.shape[0] > one.shape[0] and two.shape[1] == one.shape[1]
    deep = draw_queries(IMAGE, {'SFT': view_of(layers=6, truth=False)})
    assert deep.shape[1] > 2 * one.shape[1]
    with_rewards = draw_queries(IMAGE, {'SFT': view_of()})
    assert with_rewards.shape[0] > one.shape[0] + 100


def test_classes_of_the_ground_truth_have_colours():
    figure = draw_queries(IMAGE, {'SFT': view_of(num_gts=1)})
    assert has_colour(figure, (230, 159, 0))  # the first, Okabe and Ito's orange
    assert not has_colour(figure, (204, 121, 167))  # the fifth


def test_scores_reach_the_picture():
    view = view_of()
    strong = QueryView(1, '', view.class_names, view.boxes, view.scores**0.1, view.truth)
    assert (draw_queries(IMAGE, {'a': view}) != draw_queries(IMAGE, {'a': strong})).any()


def test_image_without_boxes_or_with_equal_rewards():
    assert draw_queries(IMAGE, {'SFT': view_of(num_gts=0)}).std() > 5


def test_rewards_of_several_images():
    views = dict(SFT=[view_of(0), view_of(1)], GRQO=[view_of(2), view_of(3, num_gts=0)])
    figure = draw_rewards(views)
    assert figure.std() > 5
    without_empty = dict(views, GRQO=views['GRQO'][:1])
    np.testing.assert_array_equal(figure, draw_rewards(without_empty))


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match='same stages'):
        draw_queries(IMAGE, {})
    with pytest.raises(ValueError, match='same stages'):
        draw_queries(IMAGE, {'a': view_of(), 'b': view_of(layers=3)})
    with pytest.raises(ValueError, match='no rewards to draw'):
        draw_rewards({'a': [view_of(truth=False)]})
