from typing import Any

import pytest

from sdapi.engine.jobs.init_images import SoftInpainting
from sdapi.errors import BadRequest
from sdapi.extensions.scripts.shipped import sdapi_scripts
from sdapi.services.generation.pictures.soft_inpainting import soft_inpainting
from sdapi.services.scripts.registry import Scripts


def ask(args: object, name: str = "Soft Inpainting"):
    return soft_inpainting(
        Scripts(sdapi_scripts()).find("img2img", None, [], {name: {"args": args}})
    )


@pytest.mark.parametrize("args", [None, [], [False], [False, "no number"], {}, {"enabled": False}])
def test_switched_off_is_absent(args: object):
    assert ask(args) is None


def test_other_scripts_are_not_looked_at():
    assert ask([True], "Comments") is None


@pytest.mark.parametrize("name", ["soft inpainting", "SOFT Inpainting"])
def test_arguments_by_position_have_defaults_behind_them(name: str):
    found = ask([True, 2], name)
    assert found is not None
    assert found.settings == SoftInpainting(schedule_bias=2.0)


def test_arguments_may_have_names():
    found = ask({"enabled": True, "mask_influence": 0.25, "difference_contrast": 3})
    assert found is not None
    assert found.settings == SoftInpainting(mask_influence=0.25, difference_contrast=3.0)


def test_more_arguments_than_there_are_do_no_harm():
    assert ask([True, 1, 0.5, 4, 0, 0.5, 2, "more", None]) is not None


def test_infotext_has_every_argument_as_it_was_sent():
    found = ask([True, 1, 0.3, 3, 0, 0.4, 2.0])
    assert found is not None
    assert [str(value) for value in found.keys.values()] == [
        *("True", "1", "0.3", "3", "0", "0.4", "2.0")
    ]
    assert list(found.keys)[0::6] == [
        "Soft inpainting enabled",
        "Soft inpainting difference contrast",
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([True, "1"], "schedule_bias is '1'"),
        ({"enabled": True, "preservation_strength": None}, "preservation_strength is None"),
        ([True, 1, 0.5, 0], "transition_contrast_boost is 0; it must be a number from 1 to 100"),
        ([True, 1, 0.5, 4, 1.5], "mask_influence is 1.5"),
        ([True, 1, 0.5, 4, 0, -1], "difference_threshold is -1"),
        ([True, 1, 0.5, 4, 0, 0.5, float("nan")], "difference_contrast is nan"),
        ([True, True], "schedule_bias is True"),
        ({"enabled": True, "bias": 1}, "no argument 'bias'"),
        ("yes", "arguments are a list or an object"),
    ],
)
def test_unusable_arguments_are_named(args: Any, message: str):
    with pytest.raises(BadRequest, match=message):
        ask(args)
