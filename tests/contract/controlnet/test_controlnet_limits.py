"""Unusual units and preprocessor requests: sizes, numbers, several pictures, poses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.contract.controlnet.test_controlnet import (
    PICTURE,
    UNIT,
    ask,
    encoded,
    gradient,
    picture_of,
    units_of,
)
from tests.fakes import FakeEngine

ENCODER = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
ADAPTER = "ip-adapter-plus_sd15"
BODY: list[float] = [value for i in range(18) for value in (8.0 + 2 * i, 8.0 + i, 1.0)]


@pytest.fixture(autouse=True)
def models(data_dir: Path) -> Path:
    """Control models and an image encoder in name only; the engine here reads none."""
    folder = data_dir / "models"
    for path in ("ControlNet/control_edges.safetensors", f"ControlNet/{ADAPTER}.safetensors"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    (folder / "clip_vision").mkdir()
    (folder / "clip_vision" / ENCODER).write_bytes(b"h")
    return folder


def detect(client: TestClient, **asked: Any) -> tuple[int, dict[str, Any]]:
    body = {"controlnet_input_images": [PICTURE]} | asked
    response = client.post("/controlnet/detect", json=body)
    return response.status_code, response.json()


@pytest.mark.parametrize("mode", ["Just Resize", "Crop and Resize", "Resize and Fill"])
@pytest.mark.parametrize("size", [(30_000, 2), (2, 30_000)])
def test_a_strip_is_fitted_in_little_memory(
    client: TestClient, engine: FakeEngine, mode: str, size: tuple[int, int]
):
    strip = encoded(Image.new("RGB", size, (9, 90, 200)))
    # Whole, it would have to be drawn 960000 pixels long to cover the picture.
    status, body = ask(client, UNIT | {"image": strip, "resize_mode": mode})
    assert status == 200, body
    hint = units_of(engine)[0].hint
    assert hint.shape == (64, 64, 3)
    assert np.array_equal(hint, np.full((64, 64, 3), (9, 90, 200)))


def test_the_middle_of_a_long_picture_is_what_is_seen(client: TestClient, engine: FakeEngine):
    pixels = np.full((4, 2001, 3), 20, np.uint8)
    pixels[:, 1000] = 200
    ask(client, UNIT | {"image": encoded(Image.fromarray(pixels))})
    row = units_of(engine)[0].hint[32, :, 0].astype(int)
    assert row.max() > 190
    assert np.abs(row - row[::-1]).max() <= 1


def test_a_request_may_have_so_many_pixels(client: TestClient):
    large = encoded(Image.new("1", (7900, 8000)))
    units = [UNIT | {"image": {"image": large, "mask": large}, "module": "inpaint"}] * 3
    status, body = ask(client, *units)
    assert status == 422
    assert "args.2.image" in body["detail"]
    assert "256 million" in body["detail"]


def test_a_unit_may_have_so_many_pictures(client: TestClient):
    unit = UNIT | {"image": [{"image": PICTURE}] * 65, "input_mode": "merge"}
    status, body = ask(client, unit)
    assert status == 422
    assert "at most 64 pictures" in body["detail"]


@pytest.mark.parametrize("empty", ["", None])
@pytest.mark.parametrize("form", [dict, list, "objects"])
def test_an_empty_picture_in_any_form_is_none(
    client: TestClient, engine: FakeEngine, empty: str | None, form: Any
):
    image: Any = {"image": empty, "mask": empty}
    if form is list:
        image = [empty, empty]
    elif form == "objects":
        image = [image]
    unit = UNIT | {"image": image}
    status, _ = ask(client, unit, kind="img2img", init_images=[PICTURE])
    assert status == 200
    assert np.array_equal(units_of(engine)[0].hint, np.asarray(gradient()))
    status, body = ask(client, unit)
    assert (status, "no input image is given" in body["detail"]) == (422, True)


def test_a_mask_needs_its_picture(client: TestClient):
    status, body = ask(client, UNIT | {"image": {"image": "", "mask": PICTURE}})
    assert status == 422
    assert "args.0.image: there is a mask, but no image" in body["detail"]


def test_fields_are_read_as_pydantic_1_reads_them(client: TestClient, engine: FakeEngine):
    sent = {"weight": "0.5", "processor_res": 128.9, "enabled": "yes", "guidance_end": True}
    status, body = ask(client, UNIT | sent | {"threshold_a": "1", "pixel_perfect": 0})
    assert status == 200, body
    (unit,) = units_of(engine)
    assert (unit.weight, unit.end, unit.threshold_a) == (0.5, 1.0, 1.0)
    assert "Processor Res: 128" in body["info"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"processor_res": 10**30}, "args.0.processor_res"),
        ({"processor_res": "many"}, "args.0.processor_res"),
        ({"threshold_a": 10**400}, "args.0.threshold_a"),
        ({"weight": "nan"}, "args.0.weight"),
        ({"advanced_weighting": [1.0] * 1000}, "args.0.advanced_weighting"),
    ],
)
def test_numbers_that_are_none_are_named(client: TestClient, fields: dict[str, Any], told: str):
    status, body = ask(client, UNIT | fields)
    assert status == 422
    assert told in body["detail"]


def test_several_pictures_in_one_unit_are_for_modules_that_take_them(client: TestClient):
    status, body = ask(client, UNIT | {"image": [{"image": PICTURE}, {"image": PICTURE}]})
    assert status == 422
    assert "takes one picture, not 2; with input_mode 'merge'" in body["detail"]


def test_merged_pictures_share_the_weight_and_have_a_map_each(
    client: TestClient, engine: FakeEngine
):
    dark = encoded(Image.new("RGB", (64, 64)))
    pictures = [{"image": PICTURE}, {"image": dark}]
    unit = {"image": pictures, "input_mode": "merge", "weight": 0.8}
    status, body = ask(client, UNIT | unit | {"advanced_weighting": [1.0] * 13})
    assert status == 200, body
    first, second = units_of(engine)
    assert (first.weight, second.weight, first.advanced) == (0.4, 0.4, (0.5,) * 13)
    assert np.array_equal(first.hint, np.asarray(gradient()))
    assert not second.hint.any()
    assert [picture_of(text).getpixel((63, 0)) for text in body["images"][1:]] == [
        (255, 255, 255),
        (0, 0, 0),
    ]


def test_every_picture_of_an_adapter_is_answered(client: TestClient, engine: FakeEngine):
    pictures = [{"image": encoded(Image.new("RGB", (64, 64), name))} for name in ("red", "blue")]
    status, body = ask(client, {"module": "ip-adapter-auto", "model": ADAPTER, "image": pictures})
    assert status == 200, body
    assert len(units_of(engine)) == 1
    colours = [picture_of(text).convert("RGB").getpixel((5, 5)) for text in body["images"][1:]]
    assert colours == [(255, 0, 0), (0, 0, 255)]


def test_img2imgs_mask_is_for_modules_that_inpaint(client: TestClient, engine: FakeEngine):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    body = {"init_images": [PICTURE], "mask": encoded(mask), "inpaint_full_res": False}
    unit = {"module": "ip-adapter-auto", "model": ADAPTER}
    status, answer = ask(client, unit, kind="img2img", **body)
    assert status == 200, answer
    assert not units_of(engine)[0].pictures[0][:, :, 3].any()


def test_an_infotext_gives_way_to_old_names(client: TestClient, engine: FakeEngine):
    _, told = ask(client, UNIT | {"guidance_start": 0.1, "guidance_end": 0.4})
    text = picture_of(told["images"][0]).info["parameters"]
    status, body = ask(client, {"input_image": PICTURE, "guidance": 0.7}, infotext=text)
    assert status == 200, body
    assert (units_of(engine)[0].start, units_of(engine)[0].end) == (0.1, 0.7)


@pytest.mark.parametrize("resolution", [-1, 0, 16, 4096, 2**31 - 1])
def test_detect_takes_the_default_for_a_resolution_out_of_range(
    client: TestClient, resolution: int
):
    status, body = detect(client, controlnet_module="canny", controlnet_processor_res=resolution)
    assert status == 200
    assert picture_of(body["images"][0]).size == (512, 512)


@pytest.mark.parametrize(
    "asked",
    [
        {"controlnet_processor_res": 10**30},
        {"controlnet_processor_res": "large"},
        {"controlnet_threshold_a": 10**400},
    ],
)
def test_detect_refuses_numbers_that_are_none(client: TestClient, asked: dict[str, Any]):
    status, body = detect(client, **asked)
    assert status == 422
    assert next(iter(asked)) in str(body)


@pytest.mark.parametrize(
    "module",
    ["ip-adapter_clip_h", "ip-adapter_face_id", "ip-adapter_pulid", "facexlib", "ip-adapter-auto",
     "instant_id_face_embedding", "revision_ignore_prompt"],
)  # fmt: skip
def test_detect_refuses_modules_that_make_no_map(client: TestClient, module: str):
    status, body = detect(client, controlnet_module=module)
    assert status == 422
    assert body["detail"] == "Module not supported"


def test_detect_shows_what_a_reference_looks_at(client: TestClient):
    status, body = detect(client, controlnet_module="reference_only")
    assert status == 200
    assert np.array_equal(np.asarray(picture_of(body["images"][0])), np.asarray(gradient()))


def test_poses_are_drawn_at_their_canvas(client: TestClient):
    pose = {"people": [{"pose_keypoints_2d": BODY}], "canvas_width": 96, "canvas_height": 64}
    body = client.post("/controlnet/render_openpose_json", json=[pose, pose]).json()
    assert body["info"] == "Success"
    assert [picture_of(text).size for text in body["images"]] == [(96, 64)] * 2
    assert np.asarray(picture_of(body["images"][0])).any()


def test_no_poses_are_told(client: TestClient):
    response = client.post("/controlnet/render_openpose_json", json=[])
    assert (response.status_code, response.json()) == (200, {"info": "No pose data detected."})


@pytest.mark.parametrize(
    ("poses", "told"),
    [
        ([{"people": [], "canvas_width": 0, "canvas_height": 64}], "0: canvas_width"),
        ([{"people": 7, "canvas_width": 64, "canvas_height": 64}], "0: people"),
        (
            [{"people": [{"pose_keypoints_2d": [1]}], "canvas_width": 8, "canvas_height": 8}],
            "people[0].pose_keypoints_2d",
        ),
        ([{"people": [], "canvas_width": 8, "canvas_height": 8}] * 101, "at most 100"),
        ([{"people": [], "canvas_width": 8192, "canvas_height": 8192}] * 5, "256 million"),
        ({"people": []}, "list"),
    ],
)
def test_poses_that_are_none_are_named(client: TestClient, poses: Any, told: str):
    response = client.post("/controlnet/render_openpose_json", json=poses)
    assert response.status_code == 422
    assert told in response.text
