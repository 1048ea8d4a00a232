from typing import Any

import pytest
from PIL import Image

from sdapi.engine.jobs.job import GeneratedImage
from sdapi.options import Options
from sdapi.services.generation.pictures.variants import ANSWERED_BY, SAVED_BY, answered, saved


def images(count: int = 2) -> list[GeneratedImage]:
    """Pictures with every state there is."""
    one = Image.new("RGB", (1, 1))
    return [GeneratedImage(i, one, None, dict.fromkeys(SAVED_BY, one)) for i in range(count)]


def options(**values: Any) -> Options:
    return Options.defaults().overlay(values)


def test_nothing_but_the_pictures_without_the_options():
    assert [p.suffix for p in answered(images(), options())] == ["", ""]
    assert [p.suffix for p in saved(images(), 1, options())] == ["", ""]


def test_masks_follow_their_picture():
    chosen = options(**dict.fromkeys(ANSWERED_BY.values(), True))
    assert [(p.index, p.suffix) for p in answered(images(), chosen)] == [
        *((0, ""), (0, "mask"), (0, "mask-composite")),
        *((1, ""), (1, "mask"), (1, "mask-composite")),
    ]


def test_files_are_numbered_in_the_order_they_come_up():
    chosen = options(**dict.fromkeys(SAVED_BY.values(), True))
    order = [f"{p.index} {p.suffix}" for p in saved(images(3), 2, chosen)]
    states = ["before-face-restoration", "before-color-correction", "", "mask", "mask-composite"]
    assert order == [
        *("0 before-highres-fix", "1 before-highres-fix"),
        *(f"0 {s}" for s in states),
        *(f"1 {s}" for s in states),
        "2 before-highres-fix",
        *(f"2 {s}" for s in states),
    ]


@pytest.mark.parametrize("suffix", SAVED_BY)
def test_each_state_has_its_own_option(suffix: str):
    chosen = options(**{SAVED_BY[suffix]: True})
    assert {p.suffix for p in saved(images(), 1, chosen)} == {"", suffix}


def test_state_that_was_not_kept_is_left_out():
    plain = [GeneratedImage(0, Image.new("RGB", (1, 1)))]
    chosen = options(save_mask=True, return_mask=True)
    assert [p.suffix for p in saved(plain, 1, chosen)] == [""]
    assert [p.suffix for p in answered(plain, chosen)] == [""]
