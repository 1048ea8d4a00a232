"""Which colour names a portrait's hair, skin, shirt and background deserve.

Every region's median colour is compared, in CIELAB, with what that name looks like in renderings
(mean, and a covariance that all names of an attribute share, since light moves them all alike).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.demo_model.measuring.landmarks import FaceFinder
from tools.demo_model.pictures.dataset import Picture, Portrait, draw_sample, render
from tools.demo_model.pictures.features import LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, Points

ATTRIBUTES = ("hair", "skin", "shirt", "background")
_STREAM = 4
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.9505, 1.0, 1.089])


def to_lab(colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB in 0..1 to CIELAB (D65)."""
    linear = np.where(colour > 0.04045, ((colour + 0.055) / 1.055) ** 2.4, colour / 12.92)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    lab = [
        116.0 * f[..., 1] - 16.0,
        500.0 * (f[..., 0] - f[..., 1]),
        200.0 * (f[..., 1] - f[..., 2]),
    ]
    return np.stack(lab, axis=-1)


def _patch(picture: Picture, x: float, y: float, half: float) -> Picture:
    """Pixels of a square around (x, y), as far as they lie inside; at least one."""
    size = picture.shape[0]
    left, top = (int(np.clip(round(v - half), 0, size - 1)) for v in (x, y))
    right, bottom = (int(np.clip(round(v + half), 0, size - 1)) + 1 for v in (x, y))
    return picture[top:bottom, left:right].reshape(-1, 3)


def _median(*patches: Picture) -> NDArray[np.float64]:
    return np.median(np.concatenate(patches), axis=0) / 255.0


def region_colours(picture: Picture, points: Points) -> Mapping[str, NDArray[np.float64]]:
    """Median sRGB of crown, cheeks and nose, the shirt's lower middle, and the upper corners."""
    size = picture.shape[0]
    eyes = (points[LEFT_EYE] + points[RIGHT_EYE]) / 2.0
    down = points[MOUTH] - eyes
    across = points[RIGHT_EYE] - eyes
    unit = float(np.linalg.norm(down))
    cheeks = [eyes + 0.55 * down + sign * 0.95 * across for sign in (-1.0, 1.0)]
    crown = eyes - 1.62 * down
    nose = points[NOSE] - 0.25 * down
    edge = 0.04 * size
    return {
        "hair": _median(_patch(picture, *crown, 0.14 * unit)),
        "skin": _median(*(_patch(picture, *at, 0.10 * unit) for at in (*cheeks, nose))),
        "shirt": _median(_patch(picture, eyes[0], size - 1 - edge, edge)),
        "background": _median(
            _patch(picture, edge, edge, edge), _patch(picture, size - 1 - edge, edge, edge)
        ),
    }


@dataclass(frozen=True, slots=True)
class ColourNames:
    """Per attribute: the names, their mean colours, and the inverse of the shared covariance."""

    names: Mapping[str, list[str]]
    means: Mapping[str, NDArray[np.float64]]
    precisions: Mapping[str, NDArray[np.float64]]

    def name(self, attribute: str, colour: NDArray[np.float64]) -> str:
        """The nearest name."""
        off = to_lab(colour) - self.means[attribute]
        far = np.einsum("ni,ij,nj->n", off, self.precisions[attribute], off)
        return self.names[attribute][int(np.argmin(far))]


def asked_colours(sample: Portrait) -> Mapping[str, str]:
    """The names by which the sample was drawn."""
    who, view = sample.who, sample.view
    shown = (who.hair_name, who.skin_name, view.shirt_name, view.background_name)
    return dict(zip(ATTRIBUTES, shown, strict=True))


def learn_colour_names(finder: FaceFinder, size: int, count: int = 300) -> ColourNames:
    """Measure renderings whose colours are known."""
    seen: dict[str, dict[str, list[NDArray[np.float64]]]] = {a: {} for a in ATTRIBUTES}
    for asked, colours in measured_renderings(finder, size, range(count)):
        for attribute in ATTRIBUTES:
            lab = to_lab(colours[attribute])
            seen[attribute].setdefault(asked[attribute], []).append(lab)
    means = {a: np.stack([np.mean(c, axis=0) for c in seen[a].values()]) for a in ATTRIBUTES}
    precisions = {a: _precision(list(seen[a].values())) for a in ATTRIBUTES}
    return ColourNames({a: list(seen[a]) for a in ATTRIBUTES}, means, precisions)


def _precision(groups: list[list[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Inverse covariance of the colours around their own name's mean."""
    off = np.concatenate([np.stack(group) - np.mean(group, axis=0) for group in groups])
    return np.linalg.inv(off.T @ off / len(off) + np.eye(3))


def measured_renderings(
    finder: FaceFinder, size: int, numbers: range
) -> list[tuple[Mapping[str, str], Mapping[str, NDArray[np.float64]]]]:
    """Names asked for and colours measured, for renderings with hair in which a face is found."""
    found = []
    for number in numbers:
        sample = draw_sample(_STREAM, number)
        if not isinstance(sample, Portrait) or sample.who.hair_length == "bald":
            continue
        picture = render(sample, size)
        faces = finder.find(picture)
        if len(faces) == 1:
            found.append((asked_colours(sample), region_colours(picture, faces[0])))
    return found


def right_colours(
    names: ColourNames,
    asked: Mapping[str, str],
    colours: Mapping[str, NDArray[np.float64]],
) -> Mapping[str, bool]:
    """Per attribute, whether the nearest name is the one asked for."""
    return {a: names.name(a, colours[a]) == asked[a] for a in ATTRIBUTES}
