"""Results put back into the picture they were made from."""

from typing import Any

import pytest
from PIL import Image

from sdapi.engine.jobs.job import GeneratedImage, Result
from sdapi.images.masks import Box
from sdapi.options import Options
from sdapi.services.generation.pictures.finish import Finish, Surroundings, finish_result

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 128, 0)


def finish(plan: Finish, *images: GeneratedImage, batch_size: int = 1, **options: Any):
    result = Result(images or (drawn(0),), {})
    return finish_result(result, plan, batch_size, Options.defaults().overlay(options)).images


def drawn(index: int, cover: Image.Image | None = None) -> GeneratedImage:
    return GeneratedImage(index, Image.new("RGB", (32, 32), RED), cover)


def around(box: Box | None = None, size: tuple[int, int] = (32, 32), **changes: Any) -> Finish:
    """A blue picture, hidden on its right, or in the box."""
    hidden = Image.new("L", size)
    hidden.paste(255, box or (size[0] // 2, 0, *size))
    pictures = changes.pop("pictures", (Image.new("RGB", size, "blue"),))
    shows = changes.pop("shows", True)
    return Finish((32, 32), surroundings=Surroundings(pictures, hidden, box, shows), **changes)


def test_plain_result_stays_the_same_object():
    result = Result((drawn(0),), {})
    assert finish_result(result, Finish((32, 32)), 1, Options.defaults()) is result


def test_unmasked_part_is_that_of_the_init_picture():
    (each,) = finish(around())
    assert each.image.mode == "RGB"
    assert [each.image.getpixel((x, 9)) for x in (2, 30)] == [BLUE, RED]
    assert each.variants == {}


def test_only_masked_result_has_the_size_of_the_init_picture():
    (each,) = finish(around(Box(50, 10, 60, 20), (100, 80)))
    assert each.image.size == (100, 80)
    assert [each.image.getpixel(at) for at in ((55, 15), (5, 5))] == [RED, BLUE]


@pytest.mark.parametrize("box", [None, Box(50, 10, 60, 20)])
def test_without_overlay_the_drawn_picture_is_answered(box: Box | None):
    size = (32, 32) if box is None else (100, 80)
    (each,) = finish(around(box, size, shows=False))
    assert each.image.size == (32, 32)
    assert each.image.getpixel((2, 9)) == RED


def test_every_picture_of_a_batch_gets_its_own_surroundings():
    pictures = tuple(Image.new("RGB", (32, 32), c) for c in ("blue", "green"))
    images = finish(around(pictures=pictures), *(drawn(i) for i in range(4)), batch_size=2)
    assert [each.image.getpixel((2, 9)) for each in images] == [BLUE, GREEN, BLUE, GREEN]
    one = finish(around(), drawn(0), drawn(1), batch_size=2)
    assert [each.image.getpixel((2, 9)) for each in one] == [BLUE, BLUE]


@pytest.mark.parametrize("option", ["return_mask", "save_mask"])
def test_mask_is_a_variant_when_asked_for(option: str):
    (each,) = finish(around(Box(50, 10, 60, 20), (100, 80)), **{option: True})
    assert list(each.variants) == ["mask"]
    assert each.variants["mask"].mode == "RGB"
    assert each.variants["mask"].getbbox() == (50, 10, 60, 20)


@pytest.mark.parametrize("option", ["return_mask_composite", "save_mask_composite"])
def test_mask_composite_is_the_drawn_part_alone(option: str):
    (each,) = finish(around(Box(50, 10, 60, 20), (100, 80)), **{option: True})
    composite = each.variants["mask-composite"]
    assert (composite.mode, composite.size) == ("RGBA", (100, 80))
    assert composite.getbbox() == (50, 10, 60, 20)
    assert composite.getpixel((55, 15)) == (*RED, 255)


def test_colours_are_corrected_under_the_overlay():
    model = Image.new("RGB", (32, 32), (60, 160, 60))
    (each,) = finish(around(colours=(model,)), save_images_before_color_correction=True)
    assert each.image.getpixel((2, 9)) == BLUE
    red, green, _ = each.image.getpixel((30, 9))
    assert green > red
    before = each.variants["before-color-correction"]
    assert [before.getpixel((x, 9)) for x in (2, 30)] == [BLUE, RED]


def test_states_that_the_engine_kept_stay():
    kept = GeneratedImage(0, Image.new("RGB", (32, 32)), None, {"before-face-restoration": None})
    (each,) = finish(around(), kept, return_mask=True)
    assert list(each.variants) == ["before-face-restoration", "mask"]


@pytest.mark.parametrize("shows", [True, False])
def test_soft_inpainting_covers_what_it_says_it_has_changed(shows: bool):
    cover = Image.new("L", (4, 4))
    cover.paste(255, (0, 0, 2, 4))
    (each,) = finish(around(shows=shows), drawn(0, cover), return_mask=True)
    assert each.image.getpixel((1, 9))[0] > 240
    assert each.image.getpixel((30, 9))[2] > 240
    assert each.variants["mask"].getpixel((1, 9))[0] > 240


def test_soft_inpainting_of_a_part_covers_nothing_outside():
    cover = Image.new("L", (4, 4), 255)
    (each,) = finish(around(Box(50, 10, 60, 20), (100, 80)), drawn(0, cover), return_mask=True)
    assert each.variants["mask"].getbbox() == (50, 10, 60, 20)
    assert [each.image.getpixel(at) for at in ((55, 15), (5, 5))] == [RED, BLUE]
