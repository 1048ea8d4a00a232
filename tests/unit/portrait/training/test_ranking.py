import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.portrait.training import ranking
from sdapi.portrait.training.ranking import FaceLook, Trial


def look(**changes: float) -> FaceLook:
    """A frontal, level, sharp, calm face."""
    values = {"yaw": 0, "roll": 0, "mouth_opening": 0.05, "eye_opening": 0.3, "sharpness": 40}
    return FaceLook(np.ones(4, np.float32), **(values | changes))


BEST = ranking.reference_score(look(), 0.8)


@pytest.mark.parametrize(
    "change",
    [
        {"yaw": 30},
        {"yaw": -30},
        {"roll": 20},
        {"roll": -20},
        {"sharpness": 5},
        {"mouth_opening": 0.4},
        {"eye_opening": 0.1},
    ],
)
def test_whatever_is_wrong_with_a_face_makes_a_worse_reference(change: dict[str, float]):
    assert ranking.reference_score(look(**change), 0.8) < BEST


def test_a_stranger_makes_a_worse_reference():
    assert ranking.reference_score(look(), 0.4) < BEST


def test_blur_counts_by_thirds_at_most():
    assert ranking.reference_score(look(sharpness=0), 0.8) == pytest.approx(0.3 * BEST)


def test_the_same_face_has_a_likeness_of_one_in_either_metric():
    vector = np.array([0.6, 0.8], np.float32)
    assert ranking.likeness(vector, vector, "l2") == pytest.approx(1)
    assert ranking.likeness(vector, vector, "cosine") == pytest.approx(1)
    assert ranking.likeness(vector, vector + np.float32(1.2 / 2**0.5), "l2") == pytest.approx(
        0, abs=1e-5
    )


def test_who_differs_from_the_rest_comes_last():
    near = [np.array([1, 0.1 * i], np.float32) for i in range(4)]
    looks = [look() for _ in range(5)]
    vectors = [*near, np.array([-1, 0], np.float32)]
    looks = [FaceLook(v, 0, 0, 0, 1, 40) for v, _ in zip(vectors, looks, strict=True)]
    assert ranking.best_first(ranking.likenesses(looks, "cosine"))[-1] == 4


def trials(scores: dict[int, list[float | None]]) -> list[Trial]:
    return [Trial(step, i, score) for step, row in scores.items() for i, score in enumerate(row)]


def test_steps_count_as_often_as_their_pictures_are_among_the_best_ten():
    made = trials({50: [0.1, 0.2], 100: [0.8] * 4, 150: [0.9] * 5, 200: [0.7] * 4})
    best = ranking.best_trials(made)
    assert ranking.merge_weights(best) == {150: 5, 100: 4, 200: 1}
    assert best[0].step == 150


def test_pictures_without_a_face_or_far_worse_than_the_best_do_not_count():
    best = ranking.best_trials(trials({50: [None, 0.39], 100: [0.8, None]}))
    assert [(trial.step, trial.number) for trial in best] == [(100, 0)]


def test_without_any_face_nothing_is_best():
    assert ranking.best_trials(trials({50: [None], 100: [None]})) == []


def test_the_score_of_a_step_is_the_mean_of_its_pictures():
    assert ranking.step_scores(trials({50: [0.2, 0.4], 100: [None], 150: [0.5, None]})) == {
        50: pytest.approx(0.3),
        150: 0.5,
    }


@given(st.lists(st.one_of(st.none(), st.floats(-1, 1)), max_size=40))
def test_at_most_ten_are_best_and_none_is_better_than_the_first(scores: list[float | None]):
    best = ranking.best_trials([Trial(i, 0, score) for i, score in enumerate(scores)])
    known = [score for score in scores if score is not None]
    assert len(best) <= 10
    assert not known or best[0].score == max(known)


def test_a_step_is_beaten_when_none_of_its_pictures_is_among_the_best():
    made = trials(
        {50: [0.1, 0.2], 100: [0.8] * 4, 150: [0.9] * 5, 200: [0.7, 0.1], 250: [0.1, None]}
    )
    assert [trial.step for trial in ranking.beaten_trials(made)] == [50]


@given(
    st.lists(st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=1, max_size=3), max_size=30)
)
def test_a_step_that_is_beaten_stays_so(rows: list[list[float | None]]):
    made: list[Trial] = []
    beaten: set[int] = set()
    for step, row in enumerate(rows):
        made += [Trial(step, number, score) for number, score in enumerate(row)]
        beaten |= {trial.step for trial in ranking.beaten_trials(made)}
    assert beaten.isdisjoint(trial.step for trial in ranking.best_trials(made))
