"""One person's portrait with a drawer that only darkens: what each field of `configure` does."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from sdapi.errors import QueueFull
from sdapi.portrait.creation.drawing.passes import Drawn, Pass
from sdapi.portrait.creation.drawing.webui import Inventory, UnitsRefused
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.wire.configure import Surface
from tests.portraits.people import pixels
from tests.portraits.portrait_models import add_person
from tests.unit.portrait.creation.conftest import Workplace

pytestmark = pytest.mark.anyio
STEPS = {"first_diffusion_steps": 11, "second_diffusion_steps": 12}
ALL = (
    *("control_v11p_sd15_canny", "control_v11p_sd15_openpose", "control_v11f1e_sd15_tile"),
    *("control_sd15_random_color", "ip-adapter-full-face_sd15"),
)


async def test_the_chain_brings_the_template_to_the_person_and_changes_nothing_else(
    place: Workplace, apart_from: Callable[[Pixels, str], float]
):
    template = pixels("stranger")
    created = await place.create("ann", more_like_me=1, more_like_me_before=1)
    rgb = np.asarray(created.image)
    assert rgb.shape == template.shape
    assert apart_from(rgb, "person_0") < 0.9 * apart_from(template, "person_0")
    changed = (rgb != template).any(axis=2)
    assert 0.02 < changed.mean() < 0.5
    assert not changed[:20].any()
    assert not changed[-20:].any()


async def test_likeness_rises_with_more_like_me(
    place: Workplace, apart_from: Callable[[Pixels, str], float]
):
    apart = [
        apart_from(await place.picture("ann", more_like_me=r, more_like_me_before=r), "person_0")
        for r in (0.0, 0.5, 1.0)
    ]
    assert apart[0] > apart[1] > apart[2]


async def test_ratio_zero_is_no_fusion(place: Workplace):
    off = await place.picture("ann", apply_face_fusion_before=False, apply_face_fusion_after=False)
    zero = await place.picture("ann", more_like_me=0, more_like_me_before=0)
    assert (off == zero).all()


@pytest.mark.parametrize(
    "change",
    [
        {"apply_face_fusion_before": False},
        {"apply_face_fusion_after": False},
        {"more_like_me_before": 0.9},
        {"more_like_me": 0.9},
        {"color_shift_middle": False},
        {"color_shift_last": False},
        {"mask_region": "face"},
        {"crop_face_preprocess": False},
        {"first_denoising_strength": 0.9},
        {"second_denoising_strength": 0.9},
        {"makeup_transfer": True},
        {"makeup_transfer": True, "makeup_transfer_ratio": 1.0},
        {"background_restore": True},
        {"skin_retouching_bool": True},
        {"photo_enhancement_bool": True},
        {"photo_enhancement_bool": True, "photo_enhancement_method": "super_resolution"},
        {"sharp_ratio": 0.3},
        {"face_shape_match": True},
        {"style_name": "Anime"},
    ],
    ids=str,
)
async def test_every_switch_changes_the_picture(place: Workplace, change: dict[str, Any]):
    plain = await place.picture("ann")
    changed = await place.picture("ann", **change)
    assert changed.shape != plain.shape or (changed != plain).any()


async def test_passes_are_asked_with_the_fields_of_the_request(place: Workplace):
    strengths = {"first_denoising_strength": 0.6, "second_denoising_strength": 0.2}
    await place.create("ann", lora_weights=0.7, **strengths, **STEPS)
    first, second = place.drawer.passes
    assert (first.steps, first.strength, second.steps, second.strength) == (11, 0.6, 12, 0.2)
    assert first.size == second.size == (256, 256)
    assert (first.seed, first.checkpoint, first.cfg_scale) == (7, "base", 7.0)
    assert first.sampler == ("DPM++ 2M SDE", "Karras")
    assert first.mask_blur == 4
    assert first.prompt.startswith("a portrait of a person, <lora:ann:0.7>, ")
    assert first.prompt.endswith("put on makeup")
    assert "nsfw" in first.negative
    assert first.mask is not None
    assert second.mask is not None
    assert second.mask.sum() < first.mask.sum()


@pytest.mark.parametrize(
    ("surface", "steps", "ratios"),
    [
        (Surface.QUEUE, (50, 20), [0.5, 0.5]),
        (Surface.SD15, (50, 30), [0.5, 0.5]),
        (Surface.SDXL, (50, 30), [0.6, 0.6]),
    ],
)
async def test_each_surface_has_its_defaults(
    place: Workplace, surface: Surface, steps: tuple[int, int], ratios: list[float]
):
    who = "ann"
    if surface is Surface.SDXL:
        who = "large"
        await add_person(place.settings, who, pixels("person_0"), kind="xl")
    await place.create(who, surface=surface)
    assert tuple(each.steps for each in place.drawer.passes) == steps
    assert [given[3] for given in fusions(place)] == ratios


def fusions(place: Workplace) -> list[tuple[Any, ...]]:
    """What each fusion was given; the ratio is the fourth, whether it spares a nose the sixth."""
    both = zip(place.faces.calls, place.faces.given, strict=True)
    return [given for name, given in both if name == "fuse"]


async def test_the_second_fusion_leaves_the_nose_that_the_first_has_brought(place: Workplace):
    await place.create("ann", style_name="Anime", more_like_me=1.0)
    assert [(given[3], given[5]) for given in fusions(place)] == [(0.5, False), (0.6, True)]


async def test_men_wear_no_make_up_and_are_called_so(place: Workplace):
    await place.create("ann", sex="male")
    prompt = place.drawer.passes[0].prompt
    assert "1boy" in prompt
    assert "makeup" not in prompt


async def test_a_checkpoint_is_drawn_with_the_scale_that_suits_it(place: Workplace):
    place.targets.cfg_scale = 5.0
    place.drawer.models = Inventory(style_loras=frozenset({"lcm-lora-sdv1-5"}))
    await place.create("ann")
    await place.create("ann", lcm_accelerate=True)
    assert [each.cfg_scale for each in place.drawer.passes] == [5.0, 5.0, 2.0, 2.0]


async def test_a_whole_template_is_drawn_at_its_own_proportions(place: Workplace):
    wide = np.concatenate([pixels("nobody")[:, :100], pixels("stranger")], axis=1)
    place.serve("wide", wide)
    rgb = await place.picture("ann", template="wide", crop_face_preprocess=False)
    assert rgb.shape == wide.shape
    assert place.drawer.passes[0].size == (336, 256)


async def test_control_units_are_those_of_the_models_that_are_there(place: Workplace):
    place.drawer.models = Inventory(control_models=ALL, style_loras=frozenset())
    created = await place.create("ann")
    first, second = ([(u.module, u.weight) for u in p.units] for p in place.drawer.passes)
    assert first == [("canny", 0.5), ("none", 0.5), ("none", 0.85)]
    assert second == [("canny", 1.0), ("tile_resample", 1.0)]
    assert created.warnings == ()
    assert all(unit.rgb.shape == (256, 256, 3) for unit in place.drawer.passes[0].units)
    colour, drawn_on = place.drawer.passes[0].units[2].rgb, place.drawer.passes[0].rgb
    assert drawn_on is not None
    assert np.abs(colour.astype(int) - drawn_on).mean() < 2  # it knows colours by itself


async def test_missing_control_models_drop_their_units_with_a_warning(place: Workplace):
    place.drawer.models = Inventory(control_models=ALL[:1], style_loras=frozenset())
    created = await place.create("ann")
    assert [len(each.units) for each in place.drawer.passes] == [1, 1]
    assert any("openpose" in each for each in created.warnings)
    assert any("tile" in each for each in created.warnings)


async def test_control_models_of_other_checkpoints_stay_where_they_are(place: Workplace):
    others = ("control_v11p_sd21_canny", "sdxl-openpose", "flux-tile", "sd3.5_canny")
    place.drawer.models = Inventory(control_models=others, style_loras=frozenset())
    created = await place.create("ann")
    assert [each.units for each in place.drawer.passes] == [(), ()]
    assert any("canny" in each for each in created.warnings)


async def test_what_a_control_models_file_says_counts_before_its_name(place: Workplace):
    names = ("canny-a", "canny-b", "canny-xl-finetune")
    place.drawer.models = Inventory(
        control_models=names,
        control_kinds={"canny-a": "other", "canny-b": "xl", "canny-xl-finetune": "sd15"},
        style_loras=frozenset(),
    )
    await place.create("ann")
    assert [unit.model for unit in place.drawer.passes[0].units] == ["canny-xl-finetune"]


async def test_units_that_are_refused_are_left_out_with_a_warning(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
):
    place.drawer.models = Inventory(control_models=ALL, style_loras=frozenset())
    draw = place.drawer.draw

    async def picky(asked: Pass) -> Drawn:
        if asked.units:
            raise UnitsRefused("the units are no good")
        return await draw(asked)

    monkeypatch.setattr(place.drawer, "draw", picky)
    created = await place.create("ann")
    assert len(place.drawer.passes) == 2
    assert any("the units are no good" in each for each in created.warnings)


async def test_a_control_model_that_is_refused_costs_its_own_unit_alone(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
):
    place.drawer.models = Inventory(control_models=ALL, style_loras=frozenset())
    draw, refused = place.drawer.draw, list[str]()

    async def picky(asked: Pass) -> Drawn:
        for number, unit in enumerate(asked.units):
            if unit.model in (ALL[0], ALL[3]):
                refused.append(unit.model)
                at = f"alwayson_scripts.controlnet.args.{number}"
                raise UnitsRefused(f"{at}: {unit.model}.safetensors: the file is cut off")
        return await draw(asked)

    monkeypatch.setattr(place.drawer, "draw", picky)
    created = await place.create("ann", ipa_control=True)
    first, second = place.drawer.passes
    assert [unit.model for unit in first.units] == [ALL[1], ALL[4]]
    assert [unit.model for unit in second.units] == [ALL[4]]
    assert refused == [ALL[0], ALL[3]]  # once in a creation
    assert [each.split()[3] for each in created.warnings if "cut off" in each] == refused


async def test_tile_stands_in_for_the_colour_model(place: Workplace):
    place.drawer.models = Inventory(control_models=(ALL[0], ALL[2]), style_loras=frozenset())
    await place.create("ann")
    weights = [(unit.model, unit.weight) for unit in place.drawer.passes[0].units]
    assert weights == [(ALL[0], 0.5), (ALL[2], 0.4)]


async def test_ip_adapter_is_shown_the_persons_face(place: Workplace):
    place.drawer.models = Inventory(control_models=ALL, style_loras=frozenset())
    await place.create("ann", ipa_control=True, ipa_weight=0.6)
    first, second = place.drawer.passes
    unit = first.units[-1]
    assert (unit.module, unit.model, unit.weight) == ("ip-adapter-auto", ALL[4], 0.6)
    assert unit.mode == "My prompt is more important"
    assert place.faces.calls.count("reference_face") == 1  # for both passes
    assert unit.rgb.shape == (512, 512, 3)
    assert (unit.rgb[:40] == 255).all()
    assert 0.2 < (unit.rgb < 250).any(axis=2).mean() < 0.9
    assert [each.model for each in second.units] == [ALL[0], ALL[4]]


async def test_face_shape_match_draws_without_mask_and_pastes_the_face(place: Workplace):
    place.drawer.models = Inventory(control_models=ALL, style_loras=frozenset())
    rgb = await place.picture("ann", face_shape_match=True)
    first = place.drawer.passes[0]
    assert first.mask is None
    assert [unit.module for unit in first.units] == ["canny", "none"]
    changed = (rgb != pixels("stranger")).any(axis=2)
    assert not changed[:10].any()


async def test_the_film_lora_acts_where_it_is_and_is_missed_where_it_is_not(place: Workplace):
    place.targets.words = type(place.targets.words).read({})
    created = await place.create("ann")
    assert any("FilmVelvia3" in each for each in created.warnings)
    place.drawer.models = Inventory(style_loras=frozenset({"FilmVelvia3"}))
    await place.create("ann")
    assert "<lora:FilmVelvia3:0.65>" in place.drawer.passes[-1].prompt


async def test_lcm_draws_few_steps_unless_told_otherwise(place: Workplace):
    created = await place.create("ann", lcm_accelerate=True)
    assert any("lcm" in each for each in created.warnings)
    assert [each.steps for each in place.drawer.passes] == [50, 20]
    place.drawer.models = Inventory(style_loras=frozenset({"lcm-lora-sdv1-5"}))
    await place.create("ann", lcm_accelerate=True)
    first, second = place.drawer.passes[2:]
    assert [first.steps, second.steps] == [12, 8]
    assert (first.cfg_scale, first.sampler[0]) == (2.0, "Euler a")
    assert "<lora:lcm-lora-sdv1-5:0.8>" in first.prompt
    await place.create("ann", lcm_accelerate=True, **STEPS)
    assert [each.steps for each in place.drawer.passes[4:]] == [11, 12]


async def test_anime_has_a_checkpoint_and_words_of_its_own(place: Workplace):
    created = await place.create("ann", style_name="Anime")
    first = place.drawer.passes[0]
    assert first.checkpoint == "anime"
    assert "illustration" in first.prompt
    assert "photo" not in first.prompt.split("<lora")[1]
    assert created.image.size == (320, 320)
    larger = await place.create("ann", style_name="Anime", photo_enhancement_bool=True)
    assert larger.image.size == (640, 640)


async def test_enhancement_uses_restorers_and_upscalers_that_are_there(place: Workplace):
    place.drawer.models = Inventory(
        style_loras=frozenset(), restorers=("GFPGAN",), upscalers=("R-ESRGAN 4x+",)
    )
    created = await place.create("ann", photo_enhancement_bool=True)
    assert place.drawer.improved[-1] == {"gfpgan_visibility": 1.0, "codeformer_weight": 0.5}
    assert not any("photo_fix" in each for each in created.warnings)
    created = await place.create(
        "ann", photo_enhancement_bool=True, photo_enhancement_method="super_resolution"
    )
    assert place.drawer.improved[-1] == {"upscaler_1": "R-ESRGAN 4x+", "upscaling_resize": 2.0}
    assert created.image.size == (640, 640)


async def test_a_template_of_several_faces_gives_one_person_the_largest(place: Workplace):
    rgb = await place.picture("ann", template="two")
    changed = (rgb != pixels("two")).any(axis=(0, 2))
    assert changed[:320].any() != changed[320:].any()


async def test_an_enhancement_for_which_there_is_no_place_is_left_out(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
):
    async def improve(rgb: Pixels, fields: Mapping[str, Any]) -> Pixels:
        raise QueueFull("the queue is full")

    monkeypatch.setattr(place.drawer, "improve", improve)
    place.drawer.models = Inventory(style_loras=frozenset(), restorers=("GFPGAN",))
    created = await place.create("ann", photo_enhancement_bool=True)
    assert "photo_enhancement_bool failed and was left out" in created.warnings


@pytest.mark.parametrize(
    "task", ["shift_colour", "make_up", "retouch_skin", "fix_photo", "pose_points", "relocate"]
)
async def test_stages_that_are_not_needed_are_left_out_when_they_fail(place: Workplace, task: str):
    place.faces.failing = {task}
    created = await place.create(
        "ann", makeup_transfer=True, skin_retouching_bool=True, photo_enhancement_bool=True
    )
    assert any("failed and was left out" in each for each in created.warnings)
