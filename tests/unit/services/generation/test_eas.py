from typing import Any

import pytest

from sdapi.errors import BadRequest
from sdapi.services.generation.eas import EASFields, take_eas_fields, text_field_of


def test_plain_keys_are_taken_out_and_scripts_left():
    fields, scripts = take_eas_fields(
        {"save_dir": "tmp", "uid": "7", "controlnet": {"args": []}, "sd_vae": None}
    )
    assert fields == EASFields(save_dir="tmp", uid="7")
    assert scripts == {"controlnet": {"args": []}}


@pytest.mark.parametrize(
    ("value", "kind"),
    [(7, "a number"), (True, "a boolean"), ([], "a list"), ({}, "an object"), (1.5, "a number")],
)
def test_value_of_another_type_is_refused_by_name(value: Any, kind: str):
    with pytest.raises(BadRequest, match=f"alwayson_scripts.id_task must be a string, not {kind}"):
        take_eas_fields({"id_task": value})


@pytest.mark.parametrize("value", ["x", 7, None, True, []])
def test_unknown_plain_key_is_refused_with_the_known_ones(value: Any):
    with pytest.raises(BadRequest, match=r"alwayson_scripts\.save_dirs.*'save_dir'"):
        take_eas_fields({"save_dirs": value})


@pytest.mark.parametrize(
    "body", [None, [], "x", {}, {"alwayson_scripts": None}, {"alwayson_scripts": {"save_dir": 7}}]
)
def test_body_without_a_text_save_dir_is_not_in_url_mode(body: Any):
    assert text_field_of(body, "save_dir") is None


@pytest.mark.parametrize(
    "scripts", [{"save_dir": "tmp", "id_task": "7"}, [["save_dir", "tmp"], ["id_task", "7"]]]
)
def test_invalid_body_with_a_save_dir_is_in_url_mode(scripts: Any):
    body = {"steps": "x", "alwayson_scripts": scripts}
    assert text_field_of(body, "save_dir") == "tmp"
    assert text_field_of(body, "id_task") == "7"
