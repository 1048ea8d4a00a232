from collections.abc import Callable
from typing import Any

import pytest

from sdapi.portrait import faults
from sdapi.portrait.faults import Fault, PortraitError
from sdapi.portrait.wire import requests
from sdapi.portrait.wire.requests import TrainRequest

ID = "fa4ba43a-df55-45a4-9c31-bb0dc1e51234"
OTHER = "00000000-0000-4000-8000-000000000000"


def fault_of(call: Any) -> Fault:
    with pytest.raises(PortraitError) as caught:
        call()
    return caught.value.fault


@pytest.mark.parametrize(
    ("images", "fault"),
    [
        (None, faults.NO_IMAGES),
        ([], faults.NO_IMAGES),
        ("http://a/b", faults.INVALID_INPUT),
        ([1], faults.INVALID_INPUT),
        (["a"] * 51, faults.INVALID_INPUT),
        ({}, faults.INVALID_INPUT),
    ],
)
def test_images_that_cannot_be_meant_are_refused(images: object, fault: Fault):
    assert fault_of(lambda: requests.image_urls({"images": images})) is fault


def test_one_to_fifty_images_are_taken():
    assert requests.image_urls({"images": ["a"]}) == ("a",)
    assert len(requests.image_urls({"images": ["a"] * 50})) == 50


@pytest.mark.parametrize(
    "user_id",
    ["../x", "a/b", "..", ".", "", "a" * 129, "ü", "a b", "a\\b", "a\n", None, 5, ["a"]],
)
def test_a_user_id_that_could_be_a_path_is_refused(user_id: object):
    train = {"images": ["u"], "configure": {"user_id": user_id}}
    assert fault_of(lambda: requests.queue_train(train)) is faults.INVALID_INPUT


@pytest.mark.parametrize("user_id", ["../x", "a/b", "..", "", "a,../b", ["a", "b/c"]])
def test_a_creation_of_such_a_user_says_so(user_id: object):
    body = {"template_image": "u", "configure": {"user_id": user_id}}
    assert fault_of(lambda: requests.queue_create(body)) is faults.MODEL_ID_MALFORMED


def test_the_queues_training_has_the_documented_defaults():
    body = {"images": ["u"], "configure": {"user_id": "zhou.mo-1_A", "max_train_steps": "0"}}
    assert requests.queue_train(body) == ("zhou.mo-1_A", TrainRequest(("u",), max_train_steps=1))
    assert TrainRequest(("u",)).max_train_steps == 400
    assert TrainRequest(("u",)).steps_between_evaluations == 50


def test_several_users_come_as_a_list_or_with_commas():
    for several in (["a", "b"], "a, b"):
        body = {"template_image": "u", "configure": {"user_id": several}}
        request = requests.queue_create(body)
        assert (request.model_ids, request.is_group) == (("a", "b"), True)


def test_a_scene_needs_as_many_prompts_as_images():
    scene = {"train_scene_lora_bool": "true", "scene_lora_prompts": ["p"]}
    body = {"images": ["u"], "configure": scene}
    request = requests.rest_train(body, is_xl=True)
    assert (request.is_scene, request.scene_prompts) == (True, ("p",))
    assert TrainRequest.from_json(request.to_json()) == request
    more = {"images": ["u", "v"], "configure": scene}
    assert fault_of(lambda: requests.rest_train(more, is_xl=True)) is faults.INVALID_INPUT
    # The samples send five prompts for four images with the switch off.
    off = {**more, "configure": {"scene_lora_prompts": ["p"] * 5}}
    assert not requests.rest_train(off, is_xl=True).is_scene
    assert not requests.rest_train(more, is_xl=False).is_scene


def test_a_list_of_models_wins_and_makes_a_group():
    body = {"model_id": "x", "model_ids": [ID, ID], "template_image": "u"}
    request = requests.rest_create(body, is_xl=False)
    assert (request.model_ids, request.is_group) == ((ID, ID), True)
    go = {"model_id": ID, "model_ids": None, "template_image": "u", "configure": {}}
    assert requests.rest_create(go, is_xl=False).model_ids == (ID,)


@pytest.mark.parametrize("model_id", ["", None, "x", ID.upper(), ID.replace("-", ""), f"../{ID}"])
def test_a_model_id_that_is_none_is_refused(model_id: object):
    body = {"model_id": model_id, "template_image": "u"}
    assert fault_of(lambda: requests.rest_create(body, is_xl=False)) is faults.MODEL_ID_MALFORMED


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"model_id": ID}, faults.NO_TEMPLATE),
        ({"model_id": ID, "template_image": ""}, faults.NO_TEMPLATE),
        ({"model_id": ID, "template_image": "t2i_generate"}, faults.NO_TEMPLATE),
        ({"model_id": ID, "template_image": 3}, faults.INVALID_CREATE),
        ({"model_id": ID, "template_image": "u", "configure": []}, faults.INVALID_CREATE),
        ({"model_ids": "x", "template_image": "u"}, faults.INVALID_CREATE),
        ({"model_ids": [1], "template_image": "u"}, faults.INVALID_CREATE),
        ({"model_ids": [ID] * 65, "template_image": "u"}, faults.INVALID_CREATE),
        ({"model_ids": [ID, "x"], "template_image": "u"}, faults.MODEL_ID_MALFORMED),
    ],
)
def test_what_a_creation_lacks_is_named(body: dict[str, Any], fault: Fault):
    assert fault_of(lambda: requests.rest_create(body, is_xl=True)) is fault


def rest_train_xl(body: dict[str, Any]) -> TrainRequest:
    return requests.rest_train(body, is_xl=True)


def rest_create_xl(body: dict[str, Any]) -> requests.CreateRequest:
    return requests.rest_create(body, is_xl=True)


@pytest.mark.parametrize(
    ("read", "body", "field"),
    [
        (requests.same_person_wanted, {"configure": {"face_reconize": "?"}}, "face_reconize"),
        (requests.same_person_wanted, {"configure": 3}, "configure"),
        (requests.image_urls, {"images": "u"}, "images"),
        (requests.queue_train, {"images": ["u"], "configure": 3}, "configure"),
        (requests.queue_train, {"images": ["u"], "configure": {"user_id": "a/b"}}, "user_id"),
        (
            requests.queue_train,
            {"images": ["u"], "configure": {"user_id": "ann", "max_train_steps": "many"}},
            "max_train_steps",
        ),
        (
            rest_train_xl,
            {"images": ["u"], "configure": {"train_scene_lora_bool": "?"}},
            "train_scene_lora_bool",
        ),
        (
            rest_train_xl,
            {"images": ["u"], "configure": {"train_scene_lora_bool": True}},
            "scene_lora_prompts",
        ),
        (requests.queue_create, {"template_image": "u"}, "configure"),
        (
            requests.queue_create,
            {"template_image": "u", "configure": {"user_id": "ann", "mask_region": "ear"}},
            "mask_region",
        ),
        (rest_create_xl, {"model_ids": "x", "template_image": "u"}, "model_ids"),
        (rest_create_xl, {"model_ids": [1], "template_image": "u"}, "models"),
        (rest_create_xl, {"model_id": ID, "template_image": 3}, "template_image"),
    ],
)
def test_the_log_says_which_field_was_wrong(
    read: Callable[[dict[str, Any]], object],
    body: dict[str, Any],
    field: str,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level("INFO")
    assert fault_of(lambda: read(body)) in (faults.INVALID_INPUT, faults.INVALID_CREATE)
    (record,) = caplog.records
    assert field in record.message


def test_a_template_may_come_from_text():
    prompted = {"model_id": ID, "template_image": "u", "configure": {"t2i_prompt": "a garden"}}
    assert requests.rest_create(prompted, is_xl=False).template_url == ""
    scene = {"model_id": ID, "template_image": "t2i_generate", "configure": {"scene_id": OTHER}}
    assert requests.rest_create(scene, is_xl=True).template_url == ""


@pytest.mark.parametrize("blank", ["", " ", "\n\t", " , ", "<lora:bob:1>", "<lora:a:1>, #<>"])
def test_a_text_without_words_draws_no_template(blank: str):
    configure = {"t2i_prompt": blank}
    body = {"model_id": ID, "template_image": "u", "configure": configure}
    request = requests.rest_create(body, is_xl=False)
    assert (request.template_url, request.options.t2i_prompt) == ("u", "")
    assert [each.partition(" ")[0] for each in request.warnings] == (
        ["t2i_prompt"] if blank.strip() else []
    )
    queue = {"template_image": "u", "configure": {"user_id": "ann", **configure}}
    assert requests.queue_create(queue).template_url == "u"
    for template in ("", "t2i_generate", None):
        body["template_image"] = queue["template_image"] = template
        assert fault_of(lambda: requests.rest_create(body, is_xl=True)) is faults.NO_TEMPLATE
        assert fault_of(lambda: requests.queue_create(queue)) is faults.NO_TEMPLATE


def test_a_scene_beside_a_template_is_told_to_be_of_no_use():
    configure = {"scene_id": OTHER}
    body = {"model_id": ID, "template_image": "u", "configure": configure}
    (warning,) = requests.rest_create(body, is_xl=True).warnings
    assert warning.startswith("scene_id was not used")
    assert requests.rest_create(body, is_xl=False).warnings == ()  # it has no such field
    configure["t2i_prompt"] = "a garden"
    assert requests.rest_create(body, is_xl=True).warnings == ()
    del configure["t2i_prompt"]
    body["template_image"] = "t2i_generate"
    assert requests.rest_create(body, is_xl=True).warnings == ()


def test_no_model_is_needed_with_a_reference_picture_alone():
    body = {"model_id": "", "template_image": "u", "configure": {"ipa_control_only": True}}
    assert requests.rest_create(body, is_xl=False).model_ids == ("",)
