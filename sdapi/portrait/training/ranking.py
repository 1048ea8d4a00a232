"""Which photos serve best, and which trial pictures look most like the person."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, radians
from typing import Final, Literal

import numpy as np

from sdapi.portrait.faces.face import Embedding, distance

Metric = Literal["l2", "cosine"]

#: photos that are trained on, the most alike first
MAX_TRAINED: Final = 15
#: trial pictures whose steps make the result
BEST: Final = 10
#: trial pictures worse than this share of the best are no pictures of the person
_LEAST_SHARE: Final = 0.5
#: distance at which two pictures of the built-in embedder have nothing in common
_L2_RANGE: Final = 1.2
_CLOSED_EYES, _WIDE_MOUTH, _PENALTY = 0.15, 0.25, 0.8
_SHARP: Final = 10.0
_LEAST_SHARPNESS: Final = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class FaceLook:
    """How the face of a photo looks: angles in degrees, openings as ratios of its own sizes."""

    embedding: Embedding
    yaw: float
    roll: float
    mouth_opening: float
    eye_opening: float
    sharpness: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial picture: the step whose weights drew it, and its likeness (None: no face)."""

    step: int
    number: int
    score: float | None


def likeness(a: Embedding, b: Embedding, metric: Metric) -> float:
    """How alike two faces are: 1 for the same picture, about 0 and less for strangers."""
    apart = distance(a, b, metric)
    return 1.0 - (apart / _L2_RANGE if metric == "l2" else apart)


def likenesses(looks: Sequence[FaceLook], metric: Metric) -> list[float]:
    """Each photo's likeness to the mean of all."""
    mean = np.mean([look.embedding for look in looks], axis=0).astype(np.float32)
    return [likeness(look.embedding, mean, metric) for look in looks]


def reference_score(look: FaceLook, alike: float) -> float:
    """How well a photo serves as the source of face fusions: alike, frontal, level, sharp, calm."""
    turned = 0.5 + 0.5 * cos(radians(look.yaw))
    level = (90.0 - abs(look.roll)) / 90.0
    sharp = float(np.clip(look.sharpness / _SHARP, _LEAST_SHARPNESS, 1.0))
    is_calm = look.eye_opening >= _CLOSED_EYES and look.mouth_opening <= _WIDE_MOUTH
    return alike * turned * level * sharp * (1.0 if is_calm else _PENALTY)


def best_first(scores: Sequence[float]) -> list[int]:
    """Indices by falling score; of equals the earlier one first."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def trial_score(embedding: Embedding, trained: Sequence[Embedding], metric: Metric) -> float:
    """A trial picture's mean likeness to the photos that were trained on."""
    return float(np.mean([likeness(embedding, other, metric) for other in trained]))


def best_trials(trials: Sequence[Trial]) -> list[Trial]:
    """The trial pictures that count, the most alike first; of equals the later step."""
    scored = [trial for trial in trials if trial.score is not None]
    ordered = sorted(scored, key=lambda t: (-(t.score or 0.0), -t.step, t.number))
    top = (ordered[0].score or 0.0) if ordered else 0.0
    least = top - (1.0 - _LEAST_SHARE) * abs(top)
    return [trial for trial in ordered if (trial.score or 0.0) >= least][:BEST]


def beaten_trials(trials: Sequence[Trial]) -> list[Trial]:
    """One trial of each step that can no longer be among the best, whatever else is tried.

    More trials only raise what it takes. A step without a score may get one in a later run.
    """
    open_steps = {trial.step for trial in trials if trial.score is None}
    open_steps |= {trial.step for trial in best_trials(trials)}
    return list({t.step: t for t in trials if t.step not in open_steps}.values())


def step_scores(trials: Sequence[Trial]) -> Mapping[int, float]:
    """The mean score of each step's pictures; steps without a face are left out."""
    by_step: dict[int, list[float]] = {}
    for trial in trials:
        if trial.score is not None:
            by_step.setdefault(trial.step, []).append(trial.score)
    return {step: float(np.mean(scores)) for step, scores in sorted(by_step.items())}


def merge_weights(best: Sequence[Trial]) -> Mapping[int, int]:
    """How often each step counts in the mean of the weights."""
    return Counter(trial.step for trial in best)
