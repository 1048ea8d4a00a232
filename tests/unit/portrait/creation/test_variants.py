"""One reference picture, templates from text, scenes, SDXL, further references."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from sdapi.portrait import faults
from sdapi.portrait.creation.drawing.passes import Pass
from sdapi.portrait.creation.drawing.webui import Inventory
from sdapi.portrait.creation.face_tasks import Seen
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.wire.configure import Surface
from tests.portraits.people import pixels
from tests.portraits.portrait_fakes import FacesHere
from tests.portraits.portrait_models import add_person, picture, write_person
from tests.unit.portrait.creation.conftest import Workplace

pytestmark = pytest.mark.anyio
XL = ("diffusers_xl_canny_mid", "ip-adapter-plus-face_sdxl_vit-h")


async def test_one_picture_is_enough_without_training(
    place: Workplace, apart_from: Callable[[Pixels, str], float]
):
    url = f"{place.photos.url}/person_1"
    created = await place.create(
        "", ipa_control_only=True, ipa_image_path=url, ipa_weight=0.6, more_like_me=1
    )
    rgb = np.asarray(created.image)
    assert apart_from(rgb, "person_0") < apart_from(pixels("stranger"), "person_0")
    assert any("ip-adapter" in each for each in created.warnings)
    prompt = place.drawer.passes[0].prompt
    assert prompt.startswith("1person, face, portrait, ")
    assert "<lora" not in prompt


async def test_the_named_picture_is_shown_for_the_first_person(place: Workplace):
    place.drawer.models = Inventory(
        control_models=("ip-adapter-full-face_sd15",), style_loras=frozenset()
    )
    await place.create("ann", ipa_control=True)
    own = place.drawer.passes[0].units[0].rgb
    url = f"{place.photos.url}/stranger"
    await place.create("ann", ipa_control=True, ipa_image_path=url)
    other = place.drawer.passes[2].units[0].rgb
    assert (own != other).any()


def drawn(who: int) -> Callable[[Pass], Pixels]:
    """What a checkpoint would have drawn: a rendered person."""
    return lambda asked: picture(who, side=min(asked.size))


async def test_a_template_is_made_from_text_and_then_drawn_on(place: Workplace):
    place.drawer.invents = drawn(33)
    created = await place.create("ann", template=None, t2i_prompt="a quiet street")
    first = place.drawer.passes[0]
    assert first.rgb is None
    assert (first.size, first.steps, first.sampler[0]) == ((312, 416), 30, "Euler a")
    assert first.prompt.startswith("a quiet street, portrait, upper body, look at viewer, ")
    assert "<lora:ann:0.25>" in first.prompt
    assert "bokeh" in first.negative
    assert len(place.drawer.passes) == 3
    assert created.image.size == (312, 416)
    await place.create("ann", template=None, t2i_prompt="a close-up of somebody")
    assert "upper body" not in place.drawer.passes[3].prompt


async def test_a_checkpoint_that_knows_squares_only_draws_square_templates(place: Workplace):
    place.targets.has_square_templates = True
    place.drawer.invents = drawn(33)
    created = await place.create("ann", template=None, t2i_prompt="a quiet street")
    assert place.drawer.passes[0].size == (256, 256)
    assert created.image.size == (256, 256)


async def test_a_mans_template_wears_no_make_up(place: Workplace):
    place.drawer.invents = drawn(33)
    asked = {"template": None, "t2i_prompt": "a street"}
    await place.create("ann", **asked)
    assert "put on makeup" in place.drawer.passes[0].prompt
    await place.create("ann", sex="male", **asked)
    assert "makeup" not in place.drawer.passes[3].prompt
    folder = place.tools.folders.of("queue", "ann")
    write_person(folder, pixels("person_0"), "ann", sex="male")
    await place.create("ann", **asked)
    assert "makeup" not in place.drawer.passes[6].prompt


async def test_a_drawn_template_of_an_illustration_is_no_photo(place: Workplace):
    place.drawer.invents = drawn(33)
    await place.create("ann", template=None, t2i_prompt="a street", style_name="Anime")
    first = place.drawer.passes[0]
    assert first.checkpoint == "anime"
    assert "illustration" in first.prompt
    assert "photo" not in first.prompt
    assert "illustration" not in first.negative
    assert "cartoon" not in first.negative
    assert "nsfw" in first.negative


async def test_of_a_reference_picture_the_sex_is_said_too(place: Workplace):
    url = f"{place.photos.url}/person_1"
    await place.create("", ipa_control_only=True, ipa_image_path=url, sex="male")
    prompt = place.drawer.passes[0].prompt
    assert prompt.startswith("1person, face, portrait, 1boy, ")
    assert "makeup" not in prompt


async def test_a_text_that_gives_no_face_is_tried_four_times(place: Workplace):
    place.drawer.invents = lambda asked: np.full((asked.size[1], asked.size[0], 3), 90, np.uint8)
    place.faces.answers["see_pixels"] = Seen(pixels("nobody"), ())
    with pytest.raises(PortraitError) as caught:
        await place.create("ann", template=None, t2i_prompt="a stone")
    assert caught.value.fault is faults.NO_FACE
    assert [each.seed for each in place.drawer.passes] == [7, 8, 9, 10]


async def test_a_drawn_template_that_cannot_be_looked_at_is_tried_again(place: Workplace):
    place.drawer.invents = drawn(33)
    place.faces.failing = {"see_pixels 1"}
    created = await place.create("ann", template=None, t2i_prompt="a street")
    assert [each.seed for each in place.drawer.passes[:2]] == [7, 8]
    assert any("looking at a drawn template" in each for each in created.warnings)


async def test_a_text_that_cannot_be_drawn_is_the_first_diffusions_error(place: Workplace):
    place.drawer.failing = {1}
    with pytest.raises(PortraitError) as caught:
        await place.create("ann", template=None, t2i_prompt="a street")
    assert caught.value.fault is faults.FIRST_DIFFUSION


async def test_text_and_reference_picture_go_together(place: Workplace):
    place.drawer.invents = drawn(33)
    place.drawer.models = Inventory(control_models=("ip-adapter-full-face_sd15",))
    url = f"{place.photos.url}/person_1"
    asked = {"ipa_control_only": True, "ipa_image_path": url, "t2i_prompt": "a portrait"}
    await place.create("", template=None, **asked)
    first = place.drawer.passes[0]
    assert [(unit.weight, unit.module) for unit in first.units] == [(0.30, "ip-adapter-auto")]
    assert "<lora" not in first.prompt


@pytest.mark.parametrize(
    "text",
    [
        "a street <lora:bob:1>",
        "a street <lo<lora:x:1>ra:bob:1>",
        "a street <lo#\nra:bob:1>",
        "a street < lora:bob:1 > # nothing more",
    ],
)
async def test_a_callers_text_names_nobodys_weights(place: Workplace, text: str):
    place.drawer.invents = drawn(33)
    created = await place.create("ann", template=None, t2i_prompt=text)
    prompt = place.drawer.passes[0].prompt
    assert prompt.startswith("a street")
    assert re.findall("<.*?>", prompt) == ["<lora:ann:0.25>"]
    assert "#" not in prompt
    assert any("left out" in sentence for sentence in created.warnings)


async def test_a_shape_is_taken_from_where_it_was_drawn(place: Workplace):
    """The whole picture is drawn anew, so the face may have moved; its old outline says little."""
    await place.create("ann", face_shape_match=True, surface=Surface.SD15)
    calls = place.faces.calls
    assert (
        calls.index("masks")
        < calls.index("relocate")
        < calls.index("masks", 1 + calls.index("masks"))
    )
    assert place.drawer.passes[0].mask is None


async def test_the_background_of_a_strip_fits_a_device(place: Workplace):
    strip = np.hstack([pixels("stranger"), np.full((320, 3000, 3), 90, np.uint8)])
    place.serve("strip", strip)
    created = await place.create("ann", template="strip", background_restore=True)
    assert max(place.drawer.passes[-1].size) <= 3 * place.targets.side
    assert created.image.size == (3320, 320)


async def test_sdxl_has_its_size_units_words_and_defaults(place: Workplace):
    place.targets.side = 512
    await add_person(place.settings, "large", pixels("person_0"), kind="xl")
    place.drawer.models = Inventory(control_models=XL, style_loras=frozenset())
    created = await place.create("large", surface=Surface.SDXL, ipa_control=True)
    first, second = place.drawer.passes
    assert first.size[0] * first.size[1] == pytest.approx(512 * 512, rel=0.1)
    assert [unit.model for unit in first.units] == list(XL)
    assert [unit.model for unit in second.units] == list(XL)
    assert (first.steps, second.steps) == (50, 30)
    assert (first.mask_blur, second.mask_blur) == (8, 8)
    assert "<lora:large:0.9>" in first.prompt
    assert created.warnings == ()


async def test_a_scene_is_drawn_first_and_then_the_person_without_it(place: Workplace):
    place.drawer.invents = drawn(33)
    await add_person(place.settings, "large", pixels("person_0"), kind="xl")
    await add_person(place.settings, "street", pixels("person_0"), kind="xl", role="scene")
    place.drawer.models = Inventory(style_loras=frozenset())
    asked = {"surface": Surface.SDXL, "template": None, "scene_id": "street"}
    await place.create("large", **asked)
    prompts = [each.prompt for each in place.drawer.passes]
    assert prompts[0].startswith("a quiet street, ")
    assert "<lora:street:0.8>, <lora:large:0.25>" in prompts[0]
    assert all("street" not in prompt for prompt in prompts[1:])
    await place.create("large", t2i_prompt="a beach", **asked)
    assert place.drawer.passes[3].prompt.startswith("a beach, ")


async def test_a_turned_template_takes_the_reference_that_is_turned_like_it(
    place: Workplace, faces: FacesHere
):
    turned = pixels("turned")
    face = faces.providers.landmarks.locate(turned, faces.providers.detector.detect(turned)[0])
    folder = place.tools.folders.of("queue", "ann")
    place.serve("template", picture(33, side=320, yaw=35.0))
    await place.create("ann", template="template")
    before = place.faces.calls.count("see_one")
    write_person(folder, pixels("person_0"), "ann", others=((turned, face),))
    await place.create("ann", template="template")
    assert place.faces.calls.count("see_one") - before == before + 1
