"""img2img with masks as clients see it, on an engine that paints one colour for each seed."""

import base64
import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdapi.images import read_infotext

RED = (255, 0, 0)


def encoded(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def mask(size: tuple[int, int] = (96, 64)) -> Image.Image:
    found = Image.new("L", size)
    found.paste(255, (40, 20, 60, 40))
    return found


def ask(client: TestClient, **changes: Any):
    body = {
        "seed": 255,  # red
        "width": 64,
        "height": 64,
        "steps": 1,
        "init_images": [encoded(Image.new("RGB", (96, 64), "blue"))],
        "mask": encoded(mask()),
    }
    return client.post("/sdapi/v1/img2img", json=body | changes)


def pictures(answer: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in answer["images"]]


def test_only_masked_is_the_default_and_answers_with_the_size_of_the_init_image(
    client: TestClient,
):
    answer = ask(client, mask_blur=0).json()
    (picture,) = pictures(answer)
    assert picture.size == (96, 64)
    assert [picture.getpixel(at) for at in ((50, 30), (2, 2))] == [RED, (0, 0, 255)]
    assert "Inpaint area: Only masked" in json.loads(answer["info"])["infotexts"][0]


def test_masks_come_behind_their_picture_without_a_text(client: TestClient):
    overrides = {"return_mask": True, "return_mask_composite": True}
    answer = ask(client, batch_size=2, override_settings=overrides).json()
    found = pictures(answer)
    assert [each.mode for each in found] == ["RGB", "RGB", "RGBA"] * 2
    assert {each.size for each in found} == {(96, 64)}
    assert [bool(read_infotext(each)[0]) for each in found] == [True, False, False] * 2
    assert len(json.loads(answer["info"])["infotexts"]) == 2


def test_masks_are_saved_beside_their_picture(client: TestClient, data_dir: Path):
    overrides = {
        "save_mask": True,
        "save_mask_composite": True,
        "img2img_color_correction": True,
        "save_images_before_color_correction": True,
    }
    answer = ask(client, save_images=True, override_settings=overrides).json()
    assert len(answer["images"]) == 1
    names = sorted(path.name for path in (data_dir / "outputs").rglob("*.png"))
    assert names == [
        "00000-255-before-color-correction.png",
        "00001-255.png",
        "00002-255-mask.png",
        "00003-255-mask-composite.png",
    ]


def test_init_images_are_saved_under_their_hash_when_asked_for(client: TestClient, data_dir: Path):
    answer = ask(client, override_settings={"save_init_img": True}).json()
    digest = hashlib.md5(Image.new("RGB", (96, 64), "blue").tobytes()).hexdigest()
    assert [path.name for path in (data_dir / "outputs").rglob("*.*")] == [f"{digest}.png"]
    info = json.loads(answer["info"])
    assert f"Init image hash: {digest}" in info["infotexts"][0]
    assert "Init image hash" not in info["extra_generation_params"]


def test_folder_of_init_images_must_be_an_allowed_one(client: TestClient):
    overrides = {"save_init_img": True, "outdir_init_images": "/etc"}
    response = ask(client, override_settings=overrides)
    assert (response.status_code, response.json()["code"]) == (403, "path_not_allowed")


def test_pictures_are_in_the_echo_only_when_asked_for(client: TestClient):
    for wanted in (True, False):
        parameters = ask(client, include_init_images=wanted).json()["parameters"]
        assert (parameters["init_images"] is not None) == wanted
        assert (parameters["mask"] is not None) == wanted
        assert parameters["include_init_images"] == wanted


def test_empty_mask_text_is_no_mask(client: TestClient):
    answer = ask(client, mask="").json()
    assert pictures(answer)[0].size == (64, 64)
    assert "Mask" not in json.loads(answer["info"])["infotexts"][0]


def test_soft_inpainting_is_for_img2img_alone(client: TestClient):
    scripts = {"soft inpainting": {"args": [True]}}
    response = client.post("/sdapi/v1/txt2img", json={"alwayson_scripts": scripts})
    assert response.status_code == 422
    assert response.json()["detail"] == "Script 'soft inpainting' not found"
    info = json.loads(ask(client, alwayson_scripts=scripts).json()["info"])
    text = info["infotexts"][0]
    assert "Denoising strength: 0.75, Soft inpainting enabled: True, " in text


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"mask": "data:image/png;base64,"}, "Invalid encoded image"),
        ({"mask": "aGVsbG8="}, "Invalid encoded image"),
        ({"mask": encoded(mask((90, 64)))}, "mask: it has 90x64 pixels and an init image 96x64"),
        ({"inpainting_fill": 7}, "inpainting_fill: 7 is unknown"),
        ({"mask_blur": 10**6}, "mask_blur: 1000000 is too much"),
        ({"inpaint_full_res_padding": -90}, "inpaint_full_res_padding: -90 leaves nothing"),
        ({"width": 16384, "height": 16384}, "width, height: 16384x16384 is more than"),
        ({"width": 10**9, "height": 8}, "width, height: 1000000000x8 is more than"),
        ({"init_images": ["data:image/png;base64,"]}, "Invalid encoded image"),
        ({"init_images": [encoded(Image.new("L", (8, 8)))] * 3}, "bad number of images passed: 3"),
        ({"image_cfg_scale": 1e300}, "image_cfg_scale: 1e+300 is out of range"),
        ({"override_settings": {"inpainting_mask_weight": 7}}, "inpainting_mask_weight: 7"),
        (
            {"alwayson_scripts": {"Soft Inpainting": {"args": [True, "much"]}}},
            "Soft Inpainting: schedule_bias is 'much'",
        ),
    ],
)
def test_bad_input_is_refused_at_once_and_named(
    client: TestClient, changes: dict[str, Any], detail: str
):
    began = time.monotonic()
    response = ask(client, **changes)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(detail)
    assert time.monotonic() - began < 20
    assert ask(client).status_code == 200


def test_picture_without_pixels_is_refused(client: TestClient):
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(8) + b"\x08\x02\x00\x00\x00"
    for data in (header + bytes(4), b"P6 0 0 255\n", b"GIF89a\0\0\0\0\0\0\0;"):
        response = ask(client, init_images=[base64.b64encode(data).decode()])
        assert (response.status_code, response.json()["code"]) == (422, "invalid_image")
