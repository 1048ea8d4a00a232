"""Photos of people who do not exist, drawn by the demo model's renderer and kept as files.

`python -m tests.portraits.people` draws them anew. One person on `person_0` to `person_4` and,
turned by 40 degrees, on `turned`; somebody else on `stranger`; both on `two`; `nobody` is a ball.
"""

from dataclasses import replace
from math import radians
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parents[1] / "pictures" / "people"
PERSON = tuple(f"person_{i}" for i in range(5))
NAMES = (*PERSON, "turned", "stranger", "two", "nobody")
_SIDE = 320
_PERSON, _STRANGER = 8, 4
#: those of the person's views that look at the camera
_VIEWS = (0, 1, 2, 4, 6)


def photo(name: str) -> bytes:
    """The JPEG of one of them."""
    return (FOLDER / f"{name}.jpg").read_bytes()


def pixels(name: str) -> np.ndarray:
    """The same, decoded to RGB."""
    return np.array(Image.open(FOLDER / f"{name}.jpg").convert("RGB"))


def draw_all() -> None:
    """Write every file."""
    pictures = {
        name: _draw(_PERSON, view, 0.0 if view == 0 else None)
        for name, view in zip(PERSON, _VIEWS, strict=True)
    }
    pictures["turned"] = _draw(_PERSON, 3, 40.0)
    pictures["stranger"] = _draw(_STRANGER, 0, 0.0)
    pictures["two"] = np.hstack([pictures["person_0"], pictures["stranger"]])
    pictures["nobody"] = _ball()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(FOLDER / f"{name}.jpg", quality=90)


def _draw(who: int, how: int, yaw: float | None) -> np.ndarray:
    from tools.demo_model.pictures.person import draw_identity, draw_view
    from tools.demo_model.pictures.portrait import render_portrait

    identity = draw_identity(np.random.default_rng([50, who]))
    view = draw_view(np.random.default_rng([60, how, who]))
    turn = view.yaw if yaw is None else radians(yaw)
    view = replace(view, framing="portrait", scale=0.6, yaw=turn)
    return (render_portrait(identity, view, _SIDE) * 255.0 + 0.5).astype(np.uint8)


def _ball() -> np.ndarray:
    from tools.demo_model.pictures.objects import draw_still, render_still

    still = draw_still(np.random.default_rng(1))
    return (render_still(still, _SIDE) * 255.0 + 0.5).astype(np.uint8)


if __name__ == "__main__":
    draw_all()
