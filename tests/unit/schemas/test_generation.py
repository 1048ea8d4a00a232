"""Requests: what they accept, and how they are echoed."""

import json

import pytest
from pydantic import BaseModel, ValidationError

from sdapi.schemas.extras import ExtrasSingleImageRequest
from sdapi.schemas.generation import GenerationResponse, Img2ImgRequest, Txt2ImgRequest

# As recorded in the echoed parameters of the reference.
COMMON = """prompt negative_prompt styles seed subseed subseed_strength seed_resize_from_h
seed_resize_from_w sampler_name scheduler batch_size n_iter steps cfg_scale width height
restore_faces tiling do_not_save_samples do_not_save_grid eta denoising_strength s_min_uncond
s_churn s_tmax s_tmin s_noise override_settings override_settings_restore_afterwards
refiner_checkpoint refiner_switch_at disable_extra_networks firstpass_image comments"""
TXT2IMG = f"""{COMMON} enable_hr firstphase_width firstphase_height hr_scale hr_upscaler
hr_second_pass_steps hr_resize_x hr_resize_y hr_checkpoint_name hr_sampler_name hr_scheduler
hr_prompt hr_negative_prompt force_task_id sampler_index script_name script_args send_images
save_images alwayson_scripts infotext"""
IMG2IMG = f"""{COMMON} init_images resize_mode image_cfg_scale mask mask_blur_x mask_blur_y
mask_blur mask_round inpainting_fill inpaint_full_res inpaint_full_res_padding
inpainting_mask_invert initial_noise_multiplier latent_mask force_task_id sampler_index
include_init_images script_name script_args send_images save_images alwayson_scripts infotext"""

NOT_NULL = {"sampler_index", "script_args", "send_images", "save_images", "alwayson_scripts"}


@pytest.mark.parametrize(
    ("model", "fields", "count"), [(Txt2ImgRequest, TXT2IMG, 55), (Img2ImgRequest, IMG2IMG, 57)]
)
def test_echo_has_the_recorded_fields_in_the_recorded_order(
    model: type[BaseModel], fields: str, count: int
):
    echoed = json.loads(model().model_dump_json())
    assert list(echoed) == fields.split()
    assert list(model().model_dump()) == fields.split()
    assert len(echoed) == count


def test_defaults_are_echoed_with_the_recorded_types():
    echoed = json.loads(Txt2ImgRequest().model_dump_json())
    recorded = {
        "prompt": "",
        "seed": -1,
        "subseed_strength": 0,
        "cfg_scale": 7.0,
        "steps": 50,
        "hr_scale": 2.0,
        "denoising_strength": None,
        "sampler_index": "Euler",
        "override_settings_restore_afterwards": True,
        "script_args": [],
        "alwayson_scripts": {},
    }
    shown = {key: echoed[key] for key in recorded}
    assert shown == recorded
    assert '"subseed_strength":0,' in Txt2ImgRequest().model_dump_json()
    assert '"subseed_strength":1.0,' in Txt2ImgRequest(subseed_strength=1).model_dump_json()
    assert json.dumps(Txt2ImgRequest().model_dump()["subseed_strength"]) == "0"
    assert json.dumps(Txt2ImgRequest(cfg_scale=7).model_dump()["cfg_scale"]) == "7.0"
    assert Img2ImgRequest().denoising_strength == 0.75


@pytest.mark.parametrize(
    ("field", "sent", "taken"),
    [
        ("steps", "3", 3),
        ("steps", 20.9, 20),
        ("steps", True, 1),
        ("seed", 2**70, 2**70),
        ("seed", 1.5, 1),
        ("cfg_scale", 7, 7.0),
        ("cfg_scale", "7.5", 7.5),
        ("prompt", 5, "5"),
        ("prompt", 1.5, "1.5"),
        ("prompt", "猫 \ud800", "猫 ?"),
        ("tiling", "yes", True),
        ("tiling", "OFF", False),
        ("tiling", 0, False),
        ("tiling", 1.0, True),
        ("styles", ["a", 1], ["a", "1"]),
        ("alwayson_scripts", [], {}),
        ("override_settings", {"a": [1]}, {"a": [1]}),
        ("script_args", [1, None, "x"], [1, None, "x"]),
    ],
)
def test_values_are_taken_as_pydantic_1_took_them(field: str, sent: object, taken: object):
    value = getattr(Txt2ImgRequest.model_validate({field: sent}), field)
    assert value == taken
    assert type(value) is type(taken)


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("steps", "x"),
        ("steps", "20.9"),
        ("steps", [1]),
        ("steps", float("inf")),
        ("cfg_scale", "x"),
        ("cfg_scale", {}),
        ("prompt", ["cat"]),
        ("prompt", {}),
        ("tiling", "maybe"),
        ("tiling", 2),
        ("tiling", []),
        ("styles", "x"),
        ("styles", [None]),
        ("override_settings", [1]),
        ("override_settings", 5),
        ("script_args", "x"),
    ],
)
def test_other_values_are_refused(field: str, sent: object):
    with pytest.raises(ValidationError):
        Txt2ImgRequest.model_validate({field: sent})


@pytest.mark.parametrize("model", [Txt2ImgRequest, Img2ImgRequest])
def test_null_is_taken_where_the_reference_takes_it(model: type[BaseModel]):
    refused = NOT_NULL | (
        {"denoising_strength", "include_init_images"} if model is Img2ImgRequest else set()
    )
    for field in model.model_fields:
        if field in refused:
            with pytest.raises(ValidationError):
                model.model_validate({field: None})
        else:
            assert getattr(model.model_validate({field: None}), field) is None


def test_unknown_keys_are_ignored_and_sent_ones_are_known():
    request = Txt2ImgRequest.model_validate({"clip_skip": 2, "steps": 50})
    assert request.model_fields_set == {"steps"}


def test_answer_without_warnings_can_leave_the_key_out():
    answer = GenerationResponse(images=[], parameters={}, info="")
    assert list(answer.model_dump(exclude_none=True)) == ["images", "parameters", "info"]


def test_every_field_is_described_for_the_docs():
    for model in (Txt2ImgRequest, Img2ImgRequest, ExtrasSingleImageRequest):
        properties = model.model_json_schema()["properties"]
        assert all("description" in field for field in properties.values())


@pytest.mark.parametrize(
    "body",
    [
        {"resize_mode": 2},
        {"upscaling_resize": 0},
        {"upscaling_resize_w": 0},
        {"gfpgan_visibility": 1.5},
        {"codeformer_weight": float("nan")},
        {"extras_upscaler_2_visibility": float("inf")},
    ],
)
def test_extras_have_bounds(body: dict[str, object]):
    with pytest.raises(ValidationError):
        ExtrasSingleImageRequest.model_validate(body)


def test_extras_convert_like_the_rest():
    request = ExtrasSingleImageRequest.model_validate(
        {"resize_mode": True, "upscaling_resize": "4", "upscaling_resize_w": 64.9}
    )
    taken = (request.resize_mode, request.upscaling_resize, request.upscaling_resize_w)
    assert taken == (1, 4.0, 64)
