"""How far outpainting extends a picture (webui-scripts 2)."""

import pytest

from sdapi.extensions.scripts.selectable.sides import SIDES, Extension, Side


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        (["left"], (64, 0, 0, 0, (192, 128))),
        (["right", "up"], (0, 64, 64, 0, (192, 192))),
        (SIDES, (64, 64, 64, 64, (256, 256))),
    ],
)
def test_multiples_of_64_are_extended_as_asked(
    sides: list[Side], expected: tuple[int, int, int, int, tuple[int, int]]
):
    made = Extension.of((128, 128), 64, sides)
    assert (made.left, made.right, made.up, made.down, made.size) == expected


def test_what_lacks_to_64_is_shared_by_the_chosen_sides():
    made = Extension.of((100, 100), 10, ["left", "right", "down"])
    assert (made.left, made.right, made.up, made.down) == (14, 14, 0, 28)
    assert made.size == (128, 128)
