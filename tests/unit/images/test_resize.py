"""The resize modes, against the recorded pictures: exact."""

from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from sdapi.images import enlarge, lanczos_step, nearest_step, resize_image, resize_to

GOLDEN = Path(__file__).parents[2] / "golden"
UPSCALERS = {
    "None": None,
    "Lanczos": partial(enlarge, step=lanczos_step),
    "Nearest": partial(enlarge, step=nearest_step),
}
RECORDED = sorted((GOLDEN / "vectors" / "images").glob("resize_*.png"))


def pixels_of(image: Image.Image) -> tuple[str, tuple[int, int], bytes]:
    return image.mode, image.size, image.tobytes()


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_resizing_equals_the_recorded(path: Path):
    _, name, mode, size, upscaler = path.stem.split("_")
    width, height = size.split("x")
    image = Image.open(GOLDEN / "inputs" / f"{name}.png").convert("RGB")
    resized = resize_image(image, int(mode[1]), (int(width), int(height)), UPSCALERS[upscaler])
    assert pixels_of(resized) == pixels_of(Image.open(path))


def test_grey_pictures_are_resized_without_the_upscaler():
    def refuse(image: Image.Image, scale: float) -> Image.Image:
        raise AssertionError

    assert resize_image(Image.new("L", (4, 4)), 0, (8, 8), refuse).size == (8, 8)


def test_upscaler_runs_once_at_scale_1_since_some_only_clean_up():
    def invert(image: Image.Image, scale: float) -> Image.Image:
        runs.append(scale)
        return Image.new("RGB", (32, 32), "white")

    runs: list[float] = []
    assert enlarge(Image.new("RGB", (8, 8)), 1, invert).getpixel((0, 0)) == (255, 255, 255)
    assert runs == [1]
    assert enlarge(Image.new("RGB", (16, 16)), 0.5, invert).size == (8, 8)
    assert runs == [1]


def test_faint_colours_survive_a_resize():
    faint = Image.new("RGBA", (8, 8), (200, 100, 50, 3))
    at_once = faint.resize((16, 24), Image.Resampling.LANCZOS)
    assert resize_to(faint, (16, 24)).tobytes() == at_once.tobytes()


def test_upscaler_that_stands_still_is_not_run_for_ever():
    assert enlarge(Image.new("RGB", (8, 8)), 4, lambda image, _: image).size == (32, 32)
