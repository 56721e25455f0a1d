import numpy as np
import pytest

from mmdet_dino_r1.lab.query_view.view import QueryRewards, QueryView, load_query_view


def small_view(truth: bool = True, **changes) -> QueryView:
    """Two stages, three queries, two prompts; the last query is muted."""
    rewards = QueryRewards(
        gt_boxes=np.array([[0.5, 0.5, 0.2, 0.2]]),
        gt_prompts=np.array([1]),
        rewards=np.array([[-1.0, -2.0, -3.0], [3.0, 2.0, 1.0]]),
        advantages=np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        matches=np.array([[0, -1, -1], [-1, 0, -1]]),
        num_kept=2,
    )
    values = dict(
        image_id=7,
        image_path='a/7.png',
        class_names=('cat', 'dog'),
        boxes=np.arange(24.0).reshape(2, 3, 4) / 24,
        scores=np.array([[[0.1, 0.9], [0.8, 0.2], [0.3, 0.4]], [[0.5, 0.1], [0.2, 0.6], [0, 0]]]),
        truth=rewards if truth else None,
    )
    return QueryView(**(values | changes))


def test_preferred_prompt_has_the_highest_score():
    view = small_view()
    np.testing.assert_array_equal(view.preferred, [[1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(view.best_scores, [[0.9, 0.8, 0.4], [0.5, 0.6, 0]])
    np.testing.assert_array_equal(view.objectness, [0.9, 0.8, 0.4])
    assert view.stages == ('selection', 'layer 1')
    np.testing.assert_array_equal(view.truth.matched, [[True, False, False], [False, True, False]])


def test_summary_by_hand():
    selection, layer = small_view().summary()
    assert selection == dict(
        stage='selection',
        score=pytest.approx(0.7),
        best_score=0.9,
        reward=-2.0,
        reward_std=1.0,
        reward_kept=-1.5,
        reward_muted=-3.0,
        reward_matched=-1.0,
        advantage=pytest.approx(1 / 3),
    )
    assert layer['reward_matched'] == 2.0 and layer['reward_muted'] == 1.0
    assert set(small_view(truth=False).summary()[0]) == {'stage', 'score', 'best_score'}


@pytest.mark.parametrize('truth', [True, False])
def test_round_trip(tmp_path, truth):
    view = small_view(truth)
    read = load_query_view(view.save(tmp_path / 'deep' / 'view.npz'))
    assert (read.image_id, read.image_path, read.class_names) == (7, 'a/7.png', ('cat', 'dog'))
    np.testing.assert_array_equal(read.boxes, view.boxes)
    np.testing.assert_array_equal(read.scores, view.scores)
    assert read.summary() == view.summary() and (read.truth is None) == (not truth)
    for name, value in (vars(view.truth) if truth else {}).items():
        np.testing.assert_array_equal(getattr(read.truth, name), value)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match='do not belong together'):
        small_view(class_names=('cat',))
    with pytest.raises(ValueError, match='at least one prompt'):
        small_view(class_names=(), scores=np.zeros((2, 3, 0)))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r'\*\.npz'):
        small_view().save(tmp_path / 'view.txt')
    np.savez(tmp_path / 'other.npz', x=np.zeros(3))
    (tmp_path / 'text.npz').write_text('no archive')
    for name in ('other.npz', 'text.npz'):
        with pytest.raises(ValueError, match='is not a query view'):
            load_query_view(tmp_path / name)
