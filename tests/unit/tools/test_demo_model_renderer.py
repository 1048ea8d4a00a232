"""The demo model's renderer: the same seeds give the same pictures, and captions name them."""

import dataclasses

import numpy as np
import pytest

from tools.demo_model.pictures.attributes import UNNAMED, named_attributes
from tools.demo_model.pictures.captions import caption_nothing, caption_portrait, caption_still
from tools.demo_model.pictures.dataset import TRAIN, Portrait, draw_sample, render
from tools.demo_model.pictures.objects import FLATS, SOLIDS, Still, draw_still, render_still
from tools.demo_model.pictures.palette import PLAIN
from tools.demo_model.pictures.person import Identity, View, draw_identity, draw_view
from tools.demo_model.pictures.portrait import render_portrait

SIZE = 48


def draw_person(seed: int) -> tuple[Identity, View]:
    rng = np.random.default_rng(seed)
    return draw_identity(rng), draw_view(rng)


def test_same_number_gives_the_same_picture():
    first, second = (render(draw_sample(TRAIN, 11), SIZE) for _ in range(2))

    assert first.dtype == np.uint8
    assert first.shape == (SIZE, SIZE, 3)
    assert np.array_equal(first, second)


def test_streams_hold_different_pictures():
    assert draw_sample(1, 3) != draw_sample(2, 3)


def test_most_samples_are_portraits_and_some_are_objects():
    samples = [draw_sample(TRAIN, i) for i in range(200)]

    portraits = sum(isinstance(sample, Portrait) for sample in samples)
    assert 130 < portraits < 180


@pytest.mark.parametrize("name", list(PLAIN))
def test_corners_of_a_portrait_show_the_background_colour(name: str):
    who, view = draw_person(5)
    view = dataclasses.replace(view, background_name=name, background=PLAIN[name])

    picture = render_portrait(who, view, SIZE)

    assert np.abs(picture[2, 2] - np.array(PLAIN[name])).max() < 0.15


def test_identity_does_not_depend_on_the_view():
    who, view = draw_person(8)
    turned = dataclasses.replace(view, yaw=view.yaw + 0.3)

    pictures = [render_portrait(who, v, SIZE) for v in (view, turned)]

    assert 0.005 < np.abs(pictures[0] - pictures[1]).mean() < 0.2


@pytest.mark.parametrize("shape", SOLIDS + FLATS)
def test_object_is_drawn_in_its_colour_before_its_background(shape: str):
    still = draw_still(np.random.default_rng(2))
    still = dataclasses.replace(
        still, shape=shape, colour=PLAIN["red"], background=PLAIN["blue"], radius=0.5
    )

    picture = render_still(dataclasses.replace(still, centre=(0.0, 0.0)), SIZE)

    is_red = picture[..., 0] > 2 * picture[..., 2]
    assert picture[2, 2, 2] > 0.6
    assert 0.05 < is_red.mean() < 0.9


def test_captions_name_only_what_was_drawn():
    rng = np.random.default_rng(0)
    for seed in range(40):
        who, view = draw_person(seed)
        text = caption_portrait(who, view, rng)
        assert ("glasses" in text) <= who.has_glasses
        assert ("beard" in text) <= who.has_beard
        assert (" hair" in text) <= (f"{who.hair_name} hair" in text)
        assert ("background" in text) <= (f"{view.background_name} background" in text)
        assert (" skin" in text) <= (f"{who.skin_name} skin" in text)


def test_words_of_a_caption_are_read_back():
    rng = np.random.default_rng(0)
    for seed in range(40):
        who, view = draw_person(seed)
        named = named_attributes(caption_portrait(who, view, rng))
        drawn = {
            "hair": who.hair_name,
            "length": who.hair_length.replace("medium", "shoulder-length"),
            "skin": who.skin_name,
            "eyes": who.eyes_name,
            "shirt": view.shirt_name,
            "background": view.background_name,
        }
        assert all(named[attribute] in (UNNAMED, value) for attribute, value in drawn.items())
        assert named["shape"] == named["colour"] == named["size"] == UNNAMED


def test_words_of_an_object_caption_are_read_back():
    named = named_attributes("a photo of a big red sphere, blue background")

    assert {a: value for a, value in named.items() if value} == {
        "shape": "ball|sphere",
        "colour": "red",
        "size": "big",
        "background": "blue",
    }


def test_captions_of_one_picture_vary():
    who, view = draw_person(1)
    rng = np.random.default_rng(0)

    assert len({caption_portrait(who, view, rng) for _ in range(20)}) > 15


def test_object_captions_name_shape():
    rng = np.random.default_rng(0)
    still: Still = dataclasses.replace(draw_still(rng), shape="star")

    assert all("star" in caption_still(still, rng) for _ in range(10))


def test_dropped_captions_are_mostly_empty():
    rng = np.random.default_rng(0)
    texts = [caption_nothing(rng) for _ in range(200)]

    assert 110 < texts.count("") < 170
