import pytest

from sdapi.portrait.wire.configure import (
    SPECS,
    ConfigureError,
    CreateOptions,
    Surface,
    parse_configure,
)


@pytest.mark.parametrize(
    ("surface", "expected"),
    [
        (Surface.QUEUE, (20, 0.5, True, 0.5)),
        (Surface.SD15, (30, 0.5, False, 0.5)),
        (Surface.SDXL, (30, 0.6, False, 0.6)),
    ],
)
@pytest.mark.parametrize("nothing", [None, {}])
def test_each_surface_has_its_defaults(
    surface: Surface, expected: tuple[object, ...], nothing: object
):
    options, warnings = parse_configure(nothing, surface)
    assert warnings == ()
    assert expected == (
        options.second_diffusion_steps,
        options.more_like_me,
        options.skin_retouching_bool,
        options.more_like_me_before,
    )
    assert options.given == frozenset()


def test_every_field_has_a_place():
    assert {*SPECS, "given"} == set(CreateOptions.__slots__)


def test_a_field_that_another_surface_has_is_ignored():
    options, _ = parse_configure({"mask_region": 7, "sex": "male", "new": []}, Surface.SD15)
    assert (options.mask_region, options.sex) == ("edge", "secret")
    options, _ = parse_configure({"style_name": 3, "face_shape_match": "x"}, Surface.SDXL)
    assert (options.style_name, options.face_shape_match) == ("Realistic", False)


def test_numbers_out_of_range_are_clamped_and_told():
    options, warnings = parse_configure(
        {"lora_weights": 0.1, "sharp_ratio": "2", "first_diffusion_steps": 0}, Surface.SD15
    )
    assert (options.lora_weights, options.sharp_ratio, options.first_diffusion_steps) == (0.5, 1, 1)
    assert warnings[0] == "lora_weights: 0.1 is not in 0.5 to 1.0; 0.5 is used"
    assert len(warnings) == 3


def test_values_are_converted_from_other_spellings():
    options, warnings = parse_configure(
        {
            "more_like_me": 1,
            "first_diffusion_steps": "4",
            "ipa_control": "TRUE",
            "lcm_accelerate": 1,
            "crop_face_preprocess": 0,
            "second_diffusion_steps": None,
        },
        Surface.SD15,
    )
    assert warnings == ()
    assert (options.more_like_me, options.first_diffusion_steps) == (1.0, 4)
    assert options.ipa_control
    assert options.lcm_accelerate
    assert not options.crop_face_preprocess
    assert "second_diffusion_steps" not in options.given
    assert "more_like_me" in options.given


@pytest.mark.parametrize(
    "configure",
    [
        [],
        "text",
        {"ipa_control": 2},
        {"ipa_control": "yes"},
        {"ipa_weight": "much"},
        {"ipa_weight": True},
        {"ipa_weight": "nan"},
        {"first_diffusion_steps": 2.5},
        {"t2i_prompt": 3},
        {"photo_enhancement_method": "magic"},
        {"mask_region": "ear"},
    ],
)
def test_what_cannot_be_converted_is_an_error(configure: object):
    with pytest.raises(ConfigureError):
        parse_configure(configure, Surface.QUEUE)


def test_an_unknown_style_is_the_realistic_one():
    options, warnings = parse_configure({"style_name": "Cubist"}, Surface.SD15)
    assert options.style_name == "Realistic"
    assert warnings == ("style_name: 'Cubist' is unknown; Realistic is used",)
