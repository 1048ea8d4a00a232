"""Every stage's error: status, code and text, and what has been drawn by then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdapi.portrait import faults
from sdapi.portrait.creation.drawing.webui import Inventory
from sdapi.portrait.creation.face_tasks import Seen
from sdapi.portrait.creation.one_face import OneFace
from sdapi.portrait.faults import Fault, PortraitError
from sdapi.portrait.models.artefacts import Artefacts
from sdapi.portrait.state.records import QUEUE_OWNER
from sdapi.portrait.wire.configure import Surface
from tests.portraits.people import pixels
from tests.portraits.portrait_fakes import NoSwapper
from tests.portraits.portrait_models import add_person
from tests.unit.portrait.creation.conftest import Workplace

pytestmark = pytest.mark.anyio


async def fault_of(place: Workplace, *ids: str, **configure: Any) -> Fault:
    with pytest.raises(PortraitError) as caught:
        await place.create(*(ids or ("ann",)), **configure)
    return caught.value.fault


def folder_of(place: Workplace, name: str = "ann") -> Path:
    return place.tools.folders.of(QUEUE_OWNER, name)


def spoil(path: Path) -> None:
    path.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("file", "harm", "fault"),
    [
        ("ref_image.jpg", Path.unlink, faults.NOT_TRAINED),
        ("ref_image.jpg", spoil, faults.NOT_TRAINED),
        ("meta.json", Path.unlink, faults.NOT_TRAINED),
        ("face_id.jpg", Path.unlink, faults.FACE_ID_UNREADABLE),
        ("face_id.jpg", spoil, faults.FACE_ID_UNREADABLE),
    ],
)
async def test_a_model_with_a_harmed_file_is_named(
    place: Workplace, file: str, harm: Callable[[Path], None], fault: Fault
):
    harm(folder_of(place) / file)
    assert await fault_of(place) is fault
    assert place.drawer.passes == []


@pytest.mark.parametrize(
    ("photo", "fault"),
    [
        ("see_one 1", faults.NOT_TRAINED),
        ("see_one 2", faults.FACE_ID_UNREADABLE),
        ("see", faults.NO_FACE),
    ],
)
async def test_a_photo_without_a_face_is_as_good_as_none(
    place: Workplace, photo: str, fault: Fault
):
    """Told by a fake answer: dlib tries for seconds before it gives up."""
    answer = Seen(pixels("nobody"), ()) if photo == "see" else OneFace((), None)
    place.faces.answers[photo] = answer
    assert await fault_of(place) is fault
    assert place.drawer.passes == []


async def test_an_unknown_person_is_not_trained(place: Workplace):
    assert await fault_of(place, "nobody") is faults.NOT_TRAINED


async def test_a_model_for_another_base_or_of_a_scene_is_no_person_here(place: Workplace):
    await add_person(place.settings, "large", pixels("person_0"), kind="xl")
    await add_person(place.settings, "street", pixels("person_0"), role="scene")
    for name in ("large", "street"):
        assert await fault_of(place, name) is faults.MODEL_ID_MALFORMED


async def test_a_person_whose_weights_are_gone_cannot_be_said(place: Workplace):
    await add_person(place.settings, "light", pixels("person_0"), has_lora=False)
    assert await fault_of(place, "light") is faults.MODEL_ID_MALFORMED


@pytest.mark.parametrize(
    "warning",
    [
        "lora not used: ann.safetensors: lora_down holds values that are no numbers",
        "lora not used: ann fits no layer of this checkpoint",
        "lora not found: ann",
        "lora ann: 9 of its 9 layers do not fit",
    ],
)
async def test_a_portrait_drawn_without_its_person_is_none(place: Workplace, warning: str):
    place.drawer.warnings = ("lora not used: film.safetensors: the file is gone", warning)
    assert await fault_of(place) is faults.MODEL_ID_MALFORMED
    assert len(place.drawer.passes) == 1
    place.drawer.invents = lambda asked: pixels("stranger")
    drawn = {"template": None, "t2i_prompt": "a portrait"}
    assert await fault_of(place, **drawn) is faults.MODEL_ID_MALFORMED
    assert len(place.drawer.passes) == 2


@pytest.mark.parametrize(
    "warning",
    [
        "lora not used: film.safetensors: the file is gone",
        "lora not used: anna.safetensors: the file is gone",
        "lora not found: ann-lcm",
        "lora ann: 3 of its 9 layers do not fit",
        "lora ann: 1 of its 11 layers do not fit",
        "lora anna: 9 of its 9 layers do not fit",
    ],
)
async def test_a_style_that_did_not_act_is_a_warning(place: Workplace, warning: str):
    place.drawer.warnings = (warning,)
    assert warning in (await place.create("ann")).warnings


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("missing", faults.TEMPLATE_UNREADABLE),
        ("html", faults.TEMPLATE_UNREADABLE),
        ("broken", faults.TEMPLATE_UNREADABLE),
        ("empty", faults.TEMPLATE_UNREADABLE),
        ("huge", faults.TEMPLATE_UNREADABLE),
        ("bomb", faults.TEMPLATE_UNREADABLE),
    ],
)
async def test_a_template_that_cannot_serve_is_named(place: Workplace, template: str, fault: Fault):
    assert await fault_of(place, template=template) is fault
    assert place.drawer.passes == []


@pytest.mark.parametrize(
    ("failing", "fault", "drawn"),
    [
        ("see 1", faults.TEMPLATE_UNUSABLE, 0),
        ("begin", faults.TEMPLATE_UNUSABLE, 0),
        ("masks 1", faults.TEMPLATE_UNUSABLE, 0),
        ("fuse 1", faults.FIRST_FUSION, 0),
        ("fuse 2", faults.SECOND_FUSION, 1),
        ("masks 2", faults.SECOND_DIFFUSION, 1),
    ],
)
async def test_a_stage_that_faces_fail_has_its_error(
    place: Workplace, failing: str, fault: Fault, drawn: int
):
    place.faces.failing = {failing}
    assert await fault_of(place) is fault
    assert len(place.drawer.passes) == drawn


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (1, faults.FIRST_DIFFUSION),
        (2, faults.SECOND_DIFFUSION),
        (3, faults.THIRD_DIFFUSION),
    ],
)
async def test_a_pass_that_fails_has_its_error(place: Workplace, number: int, fault: Fault):
    place.drawer.failing = {number}
    assert await fault_of(place, background_restore=True) is fault


async def test_a_swapper_that_finds_no_face_fails_the_first_fusion(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(type(place.faces.providers), "swapper", NoSwapper())
    assert await fault_of(place) is faults.FIRST_FUSION
    assert await fault_of(place, apply_face_fusion_before=False) is faults.SECOND_FUSION
    await place.create("ann", apply_face_fusion_before=False, apply_face_fusion_after=False)


async def test_as_many_faces_as_ids_or_nothing_is_drawn(place: Workplace):
    for template, ids in (("two", ("ann",) * 3), ("stranger", ("ann", "bob"))):
        fault = await fault_of(place, *ids, template=template, is_group=True)
        assert fault is faults.FACE_COUNT
    assert place.drawer.passes == []


@pytest.mark.parametrize("path", ["", "missing", "html"])
async def test_a_single_reference_that_cannot_serve_is_named(place: Workplace, path: str):
    url = f"{place.photos.url}/{path}" if path else ""
    fault = await fault_of(place, "", ipa_control_only=True, ipa_image_path=url)
    assert fault is faults.NOT_TRAINED
    if path:
        fault = await fault_of(place, ipa_control=True, ipa_image_path=url)
        assert fault is faults.NOT_TRAINED
    assert place.drawer.passes == []


async def test_a_style_without_a_checkpoint_is_a_model_that_is_not_there(place: Workplace):
    place.targets.has_anime = False
    assert await fault_of(place, style_name="Anime") is faults.MODEL_UNKNOWN


async def test_a_scene_is_the_owners_own_and_a_scene(place: Workplace):
    await add_person(place.settings, "large", pixels("person_0"), kind="xl")
    place.drawer.models = Inventory(style_loras=frozenset())
    wanted = {"surface": Surface.SDXL, "template": None, "t2i_prompt": "x"}
    assert await fault_of(place, "large", scene_id="gone", **wanted) is faults.NOT_TRAINED
    assert await fault_of(place, "large", scene_id="large", **wanted) is faults.MODEL_ID_MALFORMED


async def test_a_broken_meta_file_is_no_trained_model(place: Workplace):
    path = folder_of(place) / "meta.json"
    for text in ("", "[]", "{}", json.dumps({"kind": "sd15", "scores": 3})):
        path.write_text(text)
        assert await fault_of(place) is faults.NOT_TRAINED


async def test_a_broken_further_reference_is_left_alone(place: Workplace):
    refs = Artefacts(folder_of(place)).folder / "refs"
    refs.mkdir()
    (refs / "0.jpg").write_bytes(b"")
    (refs / "0.json").write_text("[1]")
    await place.create("ann")
