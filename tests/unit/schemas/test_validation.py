"""422 answers, against the recorded ones, through a real FastAPI app."""

from typing import Annotated, Any, Literal

import pytest
from fastapi import Body, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field, field_validator

from sdapi.schemas.extras import (
    ExtrasBatchImagesRequest,
    ExtrasSingleImageRequest,
    PNGInfoRequest,
)
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.schemas.validation import validation_body


class Strict(BaseModel):
    """Every other error that a schema of ours may come to have."""

    kind: Literal["a", "b"] = "a"
    name: str = Field("abc", min_length=2, max_length=4, pattern="^[a-z]+$")
    items: list[int] = Field([1], min_length=1, max_length=2)
    share: float = Field(0.5, gt=0, lt=1.5)
    own: str = ""

    @field_validator("own")
    @classmethod
    def refuse(cls, value: str) -> str:
        raise ValueError(f"{value} is not for me")


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()

    async def explain(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse(validation_body(error), 422)

    app.add_exception_handler(RequestValidationError, explain)

    async def accept_txt2img(body: Txt2ImgRequest) -> None: ...
    async def accept_img2img(body: Img2ImgRequest) -> None: ...
    async def accept_extra(body: ExtrasSingleImageRequest) -> None: ...
    async def accept_batch(body: ExtrasBatchImagesRequest) -> None: ...
    async def accept_info(body: PNGInfoRequest) -> None: ...
    async def accept_options(body: Annotated[dict[str, Any], Body()]) -> None: ...
    async def accept_strict(body: Strict, limit: Annotated[int, Query()] = 1) -> None: ...

    for path, endpoint in {
        "txt2img": accept_txt2img,
        "img2img": accept_img2img,
        "extra-single-image": accept_extra,
        "extra-batch-images": accept_batch,
        "png-info": accept_info,
        "options": accept_options,
        "strict": accept_strict,
    }.items():
        app.add_api_route(f"/sdapi/v1/{path}", endpoint, methods=["POST"])
    return TestClient(app)


def error(field: str | None, msg: str, kind: str, **ctx: Any) -> list[dict[str, Any]]:
    loc = ["body"] if field is None else ["body", field]
    return [{"loc": loc, "msg": msg, "type": kind, **({"ctx": ctx} if ctx else {})}]


INTEGER = ("value is not a valid integer", "type_error.integer")
IS_DICT = ("value is not a valid dict", "type_error.dict")
MISSING = ("field required", "value_error.missing")

# name of the recorded case, path, body, recorded detail
RECORDED = [
    ("err_init_string", "img2img", {"init_images": "abc"},
     error("init_images", "value is not a valid list", "type_error.list")),
    ("err_width_str", "txt2img", {"width": "abc"}, error("width", *INTEGER)),
    ("err_steps_str", "txt2img", {"steps": "x"}, error("steps", *INTEGER)),
    ("err_seed_str", "txt2img", {"seed": "abc"}, error("seed", *INTEGER)),
    ("err_cfg_str", "txt2img", {"cfg_scale": "x"},
     error("cfg_scale", "value is not a valid float", "type_error.float")),
    ("err_styles_str", "txt2img", {"styles": "x"},
     error("styles", "value is not a valid list", "type_error.list")),
    ("err_override_list", "txt2img", {"override_settings": [1]},
     error("override_settings", *IS_DICT)),
    ("err_tiling_str", "txt2img", {"tiling": "maybe"},
     error("tiling", "value could not be parsed to a boolean", "type_error.bool")),
    ("t2i_prompt_list", "txt2img", {"prompt": ["cat", "dog"]},
     error("prompt", "str type expected", "type_error.str")),
    ("opt_list_body", "options", [1], error(None, *IS_DICT)),
    ("extra_bad_w", "extra-single-image", {"image": "", "resize_mode": 1, "upscaling_resize_w": 0},
     error("upscaling_resize_w", "ensure this value is greater than or equal to 1",
           "value_error.number.not_ge", limit_value=1)),
    ("extra_mode2", "extra-single-image", {"image": "", "resize_mode": 2},
     error("resize_mode", "unexpected value; permitted: 0, 1", "value_error.const",
           given=2, permitted=[0, 1])),
    ("extra_batch_missing", "extra-batch-images", {"upscaler_1": "Lanczos"},
     error("imageList", *MISSING)),
    ("pnginfo_missing", "png-info", {}, error("image", *MISSING)),
]  # fmt: skip

NOT_OBJECT = "Expecting property name enclosed in double quotes"
RECORDED_RAW = [
    ("err_raw_notjson", "txt2img", "{bad json", [{
        "loc": ["body", 1], "msg": f"{NOT_OBJECT}: line 1 column 2 (char 1)",
        "type": "value_error.jsondecode",
        "ctx": {"msg": NOT_OBJECT, "doc": "{bad json", "pos": 1, "lineno": 1, "colno": 2},
    }]),
    ("opt_raw_nonjson", "options", "not json", [{
        "loc": ["body", 0], "msg": "Expecting value: line 1 column 1 (char 0)",
        "type": "value_error.jsondecode",
        "ctx": {"msg": "Expecting value", "doc": "not json", "pos": 0, "lineno": 1, "colno": 1},
    }]),
    ("err_raw_list", "txt2img", "[1,2]", error(None, *IS_DICT)),
    ("err_raw_empty", "txt2img", "", error(None, *MISSING)),
    ("err_raw_null", "txt2img", "null", error(None, *MISSING)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "detail"), [row[1:] for row in RECORDED], ids=[row[0] for row in RECORDED]
)
def test_recorded_bodies_get_the_recorded_answer(
    client: TestClient, path: str, body: object, detail: list[dict[str, Any]]
):
    answer = client.post(f"/sdapi/v1/{path}", json=body)
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})
    assert list(answer.json()["detail"][0]) == list(detail[0])


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [row[1:] for row in RECORDED_RAW],
    ids=[row[0] for row in RECORDED_RAW],
)
def test_recorded_raw_bodies_get_the_recorded_answer(
    client: TestClient, path: str, body: str, detail: list[dict[str, Any]]
):
    json_type = {"content-type": "application/json"}
    answer = client.post(f"/sdapi/v1/{path}", content=body, headers=json_type)
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_body_that_is_not_sent_as_json_is_no_dict_and_is_told_its_header(
    client: TestClient, kind: str | None
):
    headers = {} if kind is None else {"content-type": kind}
    answer = client.post("/sdapi/v1/txt2img", content=b'{"steps": 1}', headers=headers)
    (detail,) = answer.json()["detail"]
    hint = detail.pop("ctx")["hint"]
    assert "Content-Type: application/json" in hint
    assert [detail] == error(None, *IS_DICT)


@pytest.mark.parametrize(
    "field", ["sampler_index", "script_args", "send_images", "save_images", "alwayson_scripts"]
)
def test_null_where_none_is_allowed_is_told_so(client: TestClient, field: str):
    answer = client.post("/sdapi/v1/txt2img", json={field: None})
    detail = error(field, "none is not an allowed value", "type_error.none.not_allowed")
    assert answer.json() == {"detail": detail}


def test_every_bad_field_is_named(client: TestClient):
    answer = client.post("/sdapi/v1/txt2img", json={"steps": "x", "styles": ["a", []]})
    assert answer.json()["detail"] == [
        {"loc": ["body", "styles", 1], "msg": "str type expected", "type": "type_error.str"},
        {"loc": ["body", "steps"], "msg": INTEGER[0], "type": INTEGER[1]},
    ]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"gfpgan_visibility": 2}, ("less than or equal to 1", "value_error.number.not_le", 1)),
        ({"upscaling_resize": 0}, ("greater than 0", "value_error.number.not_gt", 0)),
    ],
)
def test_bounds_are_told_as_declared(
    client: TestClient, body: dict[str, int], detail: tuple[str, str, int]
):
    (field,) = body
    answer = client.post("/sdapi/v1/extra-single-image", json=body)
    expected = error(field, f"ensure this value is {detail[0]}", detail[1], limit_value=detail[2])
    assert answer.json()["detail"] == expected
    assert type(answer.json()["detail"][0]["ctx"]["limit_value"]) is int


@pytest.mark.parametrize(
    ("body", "msg", "kind"),
    [
        ({"kind": "c"}, "unexpected value; permitted: 'a', 'b'", "value_error.const"),
        ({"name": "a"}, "ensure this value has at least 2 characters",
         "value_error.any_str.min_length"),
        ({"name": "abcde"}, "ensure this value has at most 4 characters",
         "value_error.any_str.max_length"),
        ({"name": "A1"}, 'string does not match regex "^[a-z]+$"', "value_error.str.regex"),
        ({"items": []}, "ensure this value has at least 1 items", "value_error.list.min_items"),
        ({"items": [1, 2, 3]}, "ensure this value has at most 2 items",
         "value_error.list.max_items"),
        ({"share": 1.5}, "ensure this value is less than 1.5", "value_error.number.not_lt"),
        ({"own": "x"}, "x is not for me", "value_error"),
    ],
)  # fmt: skip
def test_other_errors_have_pydantic_1_texts_as_well(
    client: TestClient, body: dict[str, Any], msg: str, kind: str
):
    (detail,) = client.post("/sdapi/v1/strict", json=body).json()["detail"]
    assert (detail["msg"], detail["type"]) == (msg, kind)


def test_query_parameters_are_told_alike(client: TestClient):
    (detail,) = client.post("/sdapi/v1/strict?limit=x", json={}).json()["detail"]
    assert detail == {"loc": ["query", "limit"], "msg": INTEGER[0], "type": INTEGER[1]}


def test_long_bodies_are_not_sent_back_whole(client: TestClient):
    headers = {"content-type": "application/json"}
    answer = client.post("/sdapi/v1/txt2img", content="{" + "x" * 100_000, headers=headers)
    assert len(answer.content) < 3000


def test_position_in_a_body_of_several_lines_is_told(client: TestClient):
    headers = {"content-type": "application/json"}
    answer = client.post("/sdapi/v1/txt2img", content='{\n  "a": 1,\n  b', headers=headers)
    ctx = answer.json()["detail"][0]["ctx"]
    assert (ctx["lineno"], ctx["colno"]) == (3, 3)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("extra-single-image", b'{"resize_mode": NaN}'),
        ("extra-single-image", b'{"resize_mode": "\\ud800"}'),
        ("extra-single-image", b'{"resize_mode": {"a": [1]}}'),
        ("txt2img", b'{"\xed\xa0\x80'),
        ("txt2img", b'{"width": NaN, "cfg_scale": []}'),
    ],
)
def test_values_that_json_or_utf_8_cannot_hold_are_answered_as_well(
    client: TestClient, path: str, body: bytes
):
    headers = {"content-type": "application/json"}
    assert client.post(f"/sdapi/v1/{path}", content=body, headers=headers).status_code == 422
