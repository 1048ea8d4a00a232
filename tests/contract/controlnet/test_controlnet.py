"""ControlNet units as clients send them, before an engine that paints."""

import base64
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdapi.engine.control.control_stages import ControlStages
from sdapi.images import encode_png, to_base64
from tests.contract.conftest import Serve
from tests.fakes import FakeEngine

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "seed": 100}


def encoded(image: Image.Image) -> str:
    return to_base64(encode_png(image, {}))


def gradient(width: int = 64, height: int = 64) -> Image.Image:
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.repeat(np.tile(ramp, (height, 1))[:, :, None], 3, axis=2))


PICTURE = encoded(gradient())
UNIT: dict[str, Any] = {"module": "none", "model": "control_edges", "image": PICTURE}


@pytest.fixture(autouse=True)
def models(data_dir: Path) -> Path:
    """A folder of control models in name only; the engine here reads none."""
    folder = data_dir / "models" / "ControlNet"
    folder.mkdir(parents=True)
    for name in ("control_edges", "control_v11p_sd15_canny", "control_v11f1p_sd15_depth"):
        (folder / f"{name}.safetensors").write_bytes(name.encode())
    (folder / "notes.txt").write_text("no model")
    return folder


@pytest.fixture
def photo_url() -> Iterator[str]:
    """The address of a photo on a web server of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(encode_png(gradient(), {}))

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/00008b87.jpg"
        server.shutdown()
        thread.join()


def ask(
    client: TestClient, *units: Any, kind: str = "txt2img", **body: Any
) -> tuple[int, dict[str, Any]]:
    scripts = {"controlnet": {"args": list(units)}} | body.pop("alwayson_scripts", {})
    response = client.post(f"/sdapi/v1/{kind}", json=SMALL | body | {"alwayson_scripts": scripts})
    return response.status_code, response.json()


def units_of(engine: FakeEngine) -> Any:
    """What the last job's units are."""
    (stages,) = (s for s in engine.jobs[-1].stages if isinstance(s, ControlStages))
    return stages.units


def picture_of(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_unit_reaches_the_engine_and_its_map_the_answer(client: TestClient, engine: FakeEngine):
    status, body = ask(client, UNIT | {"weight": 0.7, "control_mode": 2, "guidance_end": 0.5})
    assert status == 200, body
    (unit,) = units_of(engine)
    assert unit.model.path.name == "control_edges.safetensors"
    assert (unit.weight, unit.mode.value) == (0.7, "ControlNet is more important")
    assert (unit.start, unit.end) == (0.0, 0.5)
    assert np.array_equal(unit.hint, np.asarray(gradient()))
    assert len(body["images"]) == 2
    assert np.array_equal(np.asarray(picture_of(body["images"][1])), np.asarray(gradient()))
    assert 'ControlNet 0: "Module: none, Model: control_edges, Weight: 0.7' in body["info"].replace(
        "\\", ""
    )


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"save_detected_map": False}, 1),
        ({"enabled": False}, 1),
        ({"image": None, "input_image": PICTURE}, 0),
    ],
)
def test_maps_are_answered_unless_told_otherwise(
    client: TestClient, fields: dict[str, Any], count: int
):
    status, body = ask(client, UNIT | fields)
    assert len(body.get("images", [])) == count
    assert status == (200 if count else 422)


def test_an_option_keeps_maps_out_of_the_answer(client: TestClient):
    _, body = ask(client, UNIT, override_settings={"control_net_no_detectmap": True})
    assert len(body["images"]) == 1


def test_an_object_alone_is_one_unit_and_what_is_none_is_ignored(
    client: TestClient, engine: FakeEngine
):
    ask(client, alwayson_scripts={"ControlNet": {"args": UNIT}})
    assert len(units_of(engine)) == 1
    ask(client, None, False, "text", UNIT)
    assert len(units_of(engine)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"image": {"image": PICTURE}},
        {"image": [PICTURE, None]},
        {"image": [{"image": PICTURE}]},
        {"image": f"data:image/png;base64,{PICTURE}"},
        {"input_image": PICTURE},
    ],
)
def test_pictures_come_in_many_forms(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any]
):
    unit = {key: value for key, value in UNIT.items() if key != "image"} | fields
    status, body = ask(client, unit)
    assert status == 200, body
    assert np.array_equal(units_of(engine)[0].hint, np.asarray(gradient()))


@pytest.mark.parametrize("mode", [1, "Crop and Resize", "Scale to Fit (Inner Fit)"])
def test_resize_modes_have_names_and_numbers(client: TestClient, engine: FakeEngine, mode: object):
    wide = gradient(128, 64)
    status, _ = ask(client, UNIT | {"image": encoded(wide), "resize_mode": mode})
    assert status == 200
    middle = np.asarray(wide)[:, 32:96]
    assert np.array_equal(units_of(engine)[0].hint, middle)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"module": "cany"}, ["args.0.module", "module(cany) not found", "'canny'"]),
        ({"model": "control_v12_canny"}, ["args.0.model", "model not found", "_sd15_canny ["]),
        ({"model": "None"}, ["You have not selected any ControlNet Model."]),
        ({"model": ""}, ["You have not selected any ControlNet Model."]),
        ({"image": "zzz"}, ["args.0.image", "Invalid encoded image"]),
        (
            {"effective_region_mask": "zzz"},
            ["args.0.effective_region_mask", "Invalid encoded image"],
        ),
        ({"image": 7}, ["args.0.image", "7"]),
        ({"image": {"mask": PICTURE}}, ["args.0.image", '"image"']),
        ({"image": [PICTURE, PICTURE, PICTURE]}, ["args.0.image", "[image, mask]"]),
        ({"image": ""}, ["no input image is given"]),
        ({"image": None, "mask": PICTURE}, ["args.0.mask"]),
        ({"mask": encoded(gradient(32, 32))}, ["args.0.mask", "not aligned", "[32, 32]"]),
        (
            {"mask": PICTURE, "mask_image": PICTURE},
            ["Cannot specify both 'mask' and 'mask_image'!"],
        ),
        ({"guidance": 1, "guidance_end": 1}, ["Conflict of field 'guidance_end' and 'guidance'"]),
        ({"guidance_start": 0.8, "guidance_end": 0.2}, ["guidance_start(0.8) > guidance_end(0.2)"]),
        ({"weight": 3}, ["args.0.weight", "2"]),
        ({"weight": None}, ["args.0.weight"]),
        ({"resize_mode": 3}, ["args.0.resize_mode", "Resize and Fill"]),
        ({"control_mode": "prompt"}, ["args.0.control_mode", "Balanced"]),
        ({"hr_option": "Never"}, ["args.0.hr_option", "High res only"]),
        ({"image_link": "/etc/passwd"}, ["args.0.image_link", "no http or https URL"]),
        ({"image": "/etc/passwd"}, ["args.0.image", "Invalid encoded image"]),
    ],
)
def test_bad_units_are_refused_by_name(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any], told: list[str]
):
    status, body = ask(client, UNIT | fields)
    assert status == 422
    assert all(part in body["detail"] for part in told), body["detail"]
    assert engine.jobs == []
    assert ask(client, UNIT)[0] == 200


def test_more_units_than_allowed_are_refused(client: TestClient, engine: FakeEngine):
    status, body = ask(client, *[UNIT] * 20)
    assert status == 422
    assert "20 units are enabled; option control_net_unit_count allows 3" in body["detail"]
    off = UNIT | {"enabled": False}
    assert ask(client, *[off] * 20, UNIT)[0] == 200
    assert len(units_of(engine)) == 1


def test_an_option_draws_without_units_that_fail(client: TestClient, engine: FakeEngine):
    options = {"control_net_tolerate_failures": True}
    status, body = ask(client, UNIT | {"model": "bogus"}, override_settings=options)
    assert status == 200
    assert any("model not found: bogus" in text for text in body["warnings"])
    assert len(body["images"]) == 1
    assert engine.jobs[-1].stages == ()
    assert "Model: bogus" in body["info"]


def test_a_partial_mask_stands_for_the_picture_of_a_plain_module(
    client: TestClient, engine: FakeEngine
):
    drawn = Image.new("RGB", (64, 64))
    drawn.paste("white", (10, 10, 20, 20))
    ask(client, UNIT | {"mask": encoded(drawn)})
    assert np.array_equal(units_of(engine)[0].hint, np.asarray(drawn))
    ask(client, UNIT | {"mask": encoded(Image.new("L", (64, 64), 255))})
    assert np.array_equal(units_of(engine)[0].hint, np.asarray(gradient()))
    ignoring = {"controlnet_ignore_noninpaint_mask": True}
    ask(client, UNIT | {"mask": encoded(drawn)}, override_settings=ignoring)
    assert np.array_equal(units_of(engine)[0].hint, np.asarray(gradient()))


def test_img2img_lends_its_picture_and_its_resize_mode(client: TestClient, engine: FakeEngine):
    wide = encoded(gradient(128, 64))
    unit = UNIT | {"image": None, "resize_mode": "Crop and Resize"}
    status, _ = ask(client, unit, kind="img2img", init_images=[wide], resize_mode=0)
    assert status == 200
    hint = units_of(engine)[0].hint
    # Stretched: both ends are there, where a crop has neither.
    assert hint[0, 0, 0] < 8
    assert hint[0, -1, 0] > 247


def test_an_inpaint_unit_gets_img2imgs_mask(client: TestClient, engine: FakeEngine):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    unit = UNIT | {"module": "inpaint_only", "image": None}
    body = {"init_images": [PICTURE], "mask": encoded(mask), "mask_blur": 0}
    status, answer = ask(client, unit, kind="img2img", inpaint_full_res=False, **body)
    assert status == 200, answer
    (unit,) = units_of(engine)
    assert unit.module == "inpaint"
    assert np.array_equal(unit.hint[:, :, 3], np.asarray(mask))
    with picture_of(answer["images"][-1]) as shown:
        assert shown.mode == "RGBA"
        assert (shown.getpixel((0, 0))[3], shown.getpixel((63, 0))[3]) == (127, 255)


def test_an_inpaint_unit_gets_the_part_that_only_masked_draws(
    client: TestClient, engine: FakeEngine
):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 24, 24))
    unit = UNIT | {"module": "inpaint_only", "image": None}
    body = {"init_images": [PICTURE], "mask": encoded(mask), "mask_blur": 0}
    status, answer = ask(
        client, unit, kind="img2img", inpaint_full_res=True, inpaint_full_res_padding=0, **body
    )
    assert status == 200, answer
    (unit,) = units_of(engine)
    assert unit.hint.shape == (64, 64, 4)
    assert unit.hint[:, :, 3].min() == 255  # the part is what the mask covers


def test_a_unit_for_the_second_pass_only_acts_where_there_is_none(
    client: TestClient, engine: FakeEngine
):
    status, answer = ask(client, UNIT | {"hr_option": "High res only"})
    assert status == 200, answer
    assert units_of(engine)[0].acts_in(is_second_pass=False)


def test_hires_fix_answers_both_sizes_larger_first(client: TestClient, engine: FakeEngine):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.5}
    _, body = ask(client, UNIT, **hires)
    sizes = [picture_of(text).size for text in body["images"][1:]]
    assert sizes == [(128, 128), (64, 64)]
    (unit,) = units_of(engine)
    assert (unit.hint.shape[:2], unit.second_hint.shape[:2]) == ((64, 64), (128, 128))


def test_pixel_perfect_looks_at_the_drawn_pictures_pixels(client: TestClient, engine: FakeEngine):
    unit = UNIT | {"module": "canny", "image": encoded(gradient(256, 256)), "pixel_perfect": True}
    _, body = ask(client, unit)
    assert units_of(engine)[0].hint.shape == (64, 64, 3)
    assert "Processor Res: 512" in body["info"]


def test_the_documents_request_names_the_map_in_url_mode(
    serve: Serve, engine: FakeEngine, photo_url: str
):
    """The request of the product document, with the address of a server that is here."""
    client = serve(allow_private_urls=True)
    unit = {
        "image_link": photo_url,
        "enabled": True,
        "module": "canny",
        "model": "control_v11p_sd15_canny",
        "weight": 1,
        "resize_mode": "Crop and Resize",
        "low_vram": False,
        "processor_res": 512,
        "threshold_a": 100,
        "threshold_b": 200,
        "guidance_start": 0,
        "guidance_end": 1,
        "pixel_perfect": True,
        "control_mode": "Balanced",
        "input_mode": "simple",
        "batch_images": "",
        "output_dir": "",
        "loopback": False,
    }
    scripts = {"sd_model_checkpoint": "one.safetensors", "save_dir": "nas"}
    status, body = ask(client, unit, alwayson_scripts=scripts, n_iter=2)
    assert status == 200, body
    parameters = body["parameters"]
    assert len(parameters["image_url"].split(",")) == 3
    maps = parameters["image_mask_url"].split(",")
    assert len(set(maps)) == 2
    for path in maps:
        assert "/nas/controlnet_mask/" in path
        with Image.open(path) as found:
            assert found.size == (64, 64)
            assert "parameters" not in found.info


def test_without_units_url_mode_names_no_maps(client: TestClient):
    status, body = ask(client, alwayson_scripts={"save_dir": "nas"})
    assert status == 200
    assert "image_mask_url" not in body["parameters"]


def test_an_infotext_fills_what_a_unit_leaves_out(client: TestClient, engine: FakeEngine):
    told = UNIT | {"weight": 0.4, "control_mode": 1, "guidance_start": 0.25}
    _, body = ask(client, told)
    text = picture_of(body["images"][0]).info["parameters"]
    _, again = ask(client, {"image": PICTURE, "weight": 0.9}, infotext=text)
    (unit,) = units_of(engine)
    assert (unit.weight, unit.start) == (0.9, 0.25)
    assert unit.mode.value == "My prompt is more important"
    assert "Model: control_edges" in again["info"]


def test_the_lists_tell_what_there_is(client: TestClient):
    def got(path: str, **params: Any) -> Any:
        return client.get(f"/controlnet/{path}", params=params).json()

    assert got("version") == {"version": 3}
    assert got("settings") == {"control_net_unit_count": 3}
    models = got("model_list", update="false")["model_list"]
    assert [name.split(" [")[0] for name in models] == [
        "control_edges",
        "control_v11f1p_sd15_depth",
        "control_v11p_sd15_canny",
    ]
    types = got("control_types")["control_types"]
    assert types["Canny"]["default_model"] == models[2]
    assert types["All"]["model_list"] == ["None", *models]
    assert got("module_list")["module_list"][0] == "none"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"controlnet_module": "bogus"}, "Module not available"),
        ({"controlnet_module": "clip_vision"}, "Module not supported"),
        ({}, "No image selected"),
        (
            {"controlnet_module": "inpaint", "controlnet_input_images": [PICTURE]},
            "Preprocessor inpaint requires `controlnet_masks` param.",
        ),
        ({"controlnet_input_images": ["zzz"]}, "Invalid encoded image"),
        (
            {
                "controlnet_module": "inpaint",
                "controlnet_input_images": [PICTURE],
                "controlnet_masks": [encoded(gradient(8, 8))],
            },
            "controlnet_masks.0",
        ),
    ],
)
def test_detect_refuses_by_name(client: TestClient, asked: dict[str, Any], told: str):
    response = client.post("/controlnet/detect", json=asked)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(told)


@pytest.mark.parametrize(
    ("asked", "detail", "hint"),
    [
        ({"controlnet_module": "clip_vision"}, "Module not supported", "clip_vision"),
        ({"controlnet_input_images": ["zz"]}, "Invalid encoded image", "controlnet_input_images.0"),
    ],
)
def test_detect_answers_with_the_bare_text_and_hints_at_the_place(
    client: TestClient, asked: dict[str, Any], detail: str, hint: str
):
    body = client.post("/controlnet/detect", json=asked).json()
    assert body["detail"] == detail
    assert hint in body["hint"]


def test_detect_tells_the_near_modules_beside_the_webuis_text(client: TestClient):
    answer = client.post("/controlnet/detect", json={"controlnet_module": "cany"}).json()
    assert answer["detail"] == "Module not available"
    assert answer["hint"].startswith("controlnet_module 'cany' (the nearest are 'canny', ")
    assert answer["hint"].endswith(": Module not available")


def test_detect_answers_a_map_for_each_picture(client: TestClient):
    asked = {"controlnet_module": "invert", "controlnet_input_images": [PICTURE, PICTURE]}
    body = client.post("/controlnet/detect", json=asked).json()
    assert body["info"] == "Success"
    expected = 255 - np.asarray(gradient())
    for text in body["images"]:
        assert np.array_equal(np.asarray(picture_of(text)), expected)


@pytest.mark.parametrize("mask", ["zzz", encoded(gradient(8, 8))], ids=["no picture", "small"])
def test_detect_does_not_look_at_masks_of_a_module_that_takes_none(client: TestClient, mask: str):
    asked = {"controlnet_module": "invert", "controlnet_input_images": [PICTURE]}
    plain = client.post("/controlnet/detect", json=asked).json()
    masked = client.post("/controlnet/detect", json=asked | {"controlnet_masks": [mask]})
    assert (masked.status_code, masked.json()) == (200, plain)


def test_arguments_that_are_no_list_of_units_are_refused_by_their_place(client: TestClient):
    body = {"alwayson_scripts": {"controlnet": {"args": "x"}}}
    detail = client.post("/sdapi/v1/txt2img", json=body).json()["detail"]
    assert detail.startswith("alwayson_scripts.controlnet.args: ")


def test_the_routes_want_credentials_like_the_rest(serve: Serve):
    client = serve(api_auth=(("ann", "secret"),))
    assert client.get("/controlnet/model_list").status_code == 401
    assert client.get("/controlnet/version", auth=("ann", "secret")).status_code == 200
