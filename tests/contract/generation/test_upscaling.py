"""extra-single-image, extra-batch-images and the lists beside them, on a real engine."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.servers import golden_data_dir, in_process


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    data_dir = tmp_path_factory.mktemp("data")
    _add_upscalers(data_dir)
    with in_process(build_app(Settings(data_dir=data_dir)), raise_server_exceptions=False) as one:
        yield one


def _add_upscalers(data_dir: Path) -> None:
    """One that works, and a file that is none."""
    folder = data_dir / "models" / "ESRGAN"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = RRDBNet(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=2)
    torch.save(network.state_dict(), folder / "mine.pth")
    (folder / "broken.pth").write_bytes(b"no")


@pytest.fixture(scope="module")
def drawing(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that has a checkpoint, too."""
    data_dir = golden_data_dir(tmp_path_factory.mktemp("drawing") / "data", golden)
    _add_upscalers(data_dir)
    settings = Settings(data_dir=data_dir)
    with in_process(build_app(settings), raise_server_exceptions=False) as one:
        yield one


def encoded(image: Image.Image, **text: str) -> str:
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=info)
    return base64.b64encode(out.getvalue()).decode()


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def ask(client: TestClient, picture: Image.Image, status: int = 200, **body: Any) -> Any:
    body = {"image": encoded(picture), **body}
    response = client.post("/sdapi/v1/extra-single-image", json=body)
    assert response.status_code == status, response.text
    return response.json()


def test_nothing_asked_for_gives_the_picture_back(client: TestClient):
    answer = ask(client, noise(30, 20))
    assert answer == {"html_info": "<p></p>", "image": answer["image"]}
    picture = decoded(answer["image"])
    assert picture.tobytes() == noise(30, 20).tobytes()
    assert picture.info == {"postprocessing": ""}


def test_model_enlarges_until_the_size_is_reached(client: TestClient):
    answer = ask(client, noise(33, 20), upscaler_1="mine", upscaling_resize=3)
    assert decoded(answer["image"]).size == (96, 56)
    assert answer["html_info"] == "<p>Postprocess upscale by: 3.0, Postprocess upscaler: mine</p>"


def test_second_upscaler_is_mixed_in_by_its_share(client: TestClient):
    one, two = (
        ask(client, noise(16, 16), upscaler_1=name)["image"] for name in ("Lanczos", "Nearest")
    )
    both = ask(
        client,
        noise(16, 16),
        upscaler_1="Lanczos",
        upscaler_2="Nearest",
        extras_upscaler_2_visibility=0.25,
    )
    expected = Image.blend(decoded(one), decoded(two), 0.25)
    assert decoded(both["image"]).tobytes() == expected.tobytes()
    assert both["html_info"].endswith("Postprocess upscaler 2: Nearest</p>")


@pytest.mark.parametrize(("crops", "size"), [(True, (64, 64)), (False, (96, 64))])
def test_target_size_is_covered(client: TestClient, crops: bool, size: tuple[int, int]):
    answer = ask(
        client,
        noise(48, 32),
        resize_mode=1,
        upscaling_resize_w=64,
        upscaling_resize_h=64,
        upscaling_crop=crops,
        upscaler_1="Lanczos",
    )
    assert decoded(answer["image"]).size == size
    assert ("Postprocess crop to: 64x64" in answer["html_info"]) is crops


def test_picture_keeps_its_text(client: TestClient):
    sent = encoded(noise(8, 8), parameters="a cat\nSteps: 1", other="kept")
    body = {"image": sent, "upscaler_1": "Nearest", "upscaling_resize": 2}
    answer = client.post("/sdapi/v1/extra-single-image", json=body).json()
    assert decoded(answer["image"]).info == {
        "parameters": "a cat\nSteps: 1",
        "other": "kept",
        "postprocessing": "Postprocess upscale by: 2.0, Postprocess upscaler: Nearest",
    }


def test_missing_face_restorers_are_a_warning(client: TestClient):
    answer = ask(client, noise(8, 8), gfpgan_visibility=0.5, codeformer_visibility=1)
    assert decoded(answer["image"]).tobytes() == noise(8, 8).tobytes()
    told = "GFPGAN visibility: 0.5, CodeFormer visibility: 1.0, CodeFormer weight: 0"
    assert answer["html_info"] == f"<p>{told}</p>"
    assert [w.split(":")[0] for w in answer["warnings"]] == ["GFPGAN", "CodeFormer"]


def test_batch_has_one_result_for_each_in_order(client: TestClient):
    pictures = [noise(8, 8), noise(16, 24)]
    sent = [{"data": encoded(each), "name": f"{i}.png"} for i, each in enumerate(pictures)]
    body = {"imageList": sent, "upscaler_1": "Lanczos"}
    answer = client.post("/sdapi/v1/extra-batch-images", json=body).json()
    assert [decoded(each).size for each in answer["images"]] == [(16, 16), (32, 48)]
    empty = client.post("/sdapi/v1/extra-batch-images", json=body | {"imageList": []}).json()
    assert empty == {"html_info": "<p></p>", "images": []}


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"upscaler_1": "Lanzos"}, 422, "could not find upscaler named Lanzos; there are"),
        ({"upscaler_2": "mime"}, 422, "could not find upscaler named mime; there are 'mine'"),
        ({"upscaler_1": "broken"}, 422, "broken.pth: not a PyTorch file"),
        ({"upscaler_1": "Lanczos", "upscaling_resize": 0.01}, 422, "a picture of 20x20 would"),
        ({"upscaler_1": "Lanczos", "upscaling_resize": 1e9}, 422, "a picture of 20x20 would"),
        ({"image": ""}, 422, "Invalid encoded image"),
    ],
)
def test_what_cannot_be_is_refused(
    client: TestClient, body: dict[str, Any], status: int, detail: str
):
    answer = ask(client, noise(20, 20), status, **body)
    assert answer["detail"].startswith(detail)


def test_lists_have_what_can_run(client: TestClient):
    def names(path: str) -> list[str]:
        return [item["name"] for item in client.get(f"/sdapi/v1/{path}").json()]

    assert names("upscalers") == ["None", "Lanczos", "Nearest", "broken", "mine"]
    assert names("latent-upscale-modes")[:2] == ["Latent", "Latent (antialiased)"]
    assert names("face-restorers") == ["CodeFormer", "GFPGAN"]
    assert len(names("realesrgan-models")) == 6
    mine = client.get("/sdapi/v1/upscalers").json()[-1]
    assert Path(mine["model_path"]).name == "mine.pth"
    assert (mine["model_name"], mine["model_url"], mine["scale"]) == ("ESRGAN_4x", None, 4.0)


IMG2IMG = {
    "prompt": "a",
    "steps": 2,
    "seed": 1,
    "subseed": 2,
    "denoising_strength": 0.5,
    "width": 128,
    "height": 128,
    "send_images": True,
}


def drawn(client: TestClient, status: int = 200, **body: Any) -> Any:
    response = client.post("/sdapi/v1/img2img", json=IMG2IMG | body)
    assert response.status_code == status, response.text
    return response.json()


def without_time(info: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(info).items() if key != "job_timestamp"}


def test_model_enlarges_what_img2img_starts_from(drawing: TestClient):
    small = noise(64, 64)
    large = decoded(ask(drawing, small, upscaler_1="mine", upscaling_resize=2)["image"])

    by_model = drawn(
        drawing,
        init_images=[encoded(small)],
        override_settings={"upscaler_for_img2img": "mine"},
    )
    given_large = drawn(drawing, init_images=[encoded(large)])
    by_filter = drawn(drawing, init_images=[encoded(small)])

    assert by_model["images"] == given_large["images"]
    assert by_model["images"] != by_filter["images"]
    assert without_time(by_model["info"]) == without_time(given_large["info"])
    assert drawing.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


def test_model_enlarges_a_masked_part_that_is_put_back(drawing: TestClient):
    mask = Image.new("L", (400, 400))
    mask.paste(255, (40, 40, 360, 360))
    body = {
        "init_images": [encoded(noise(400, 400))],
        "mask": encoded(mask),
        "inpaint_full_res": True,
        "width": 64,
        "height": 64,
    }
    by_model = drawn(drawing, **body, override_settings={"upscaler_for_img2img": "mine"})
    by_filter = drawn(drawing, **body)
    assert decoded(by_model["images"][0]).size == (400, 400)
    assert by_model["images"] != by_filter["images"]


@pytest.mark.parametrize("name", ["broken", "missing"])
def test_upscaler_of_img2img_that_cannot_work_is_told_and_frees_the_id(
    drawing: TestClient, name: str
):
    asked = {
        "init_images": [encoded(noise(64, 64))],
        "override_settings": {"upscaler_for_img2img": name},
        "force_task_id": "mine-1",
    }
    for _ in range(2):
        assert name in drawn(drawing, 422, **asked)["detail"]


@pytest.mark.parametrize("value", ["Enable", "Enable for SDXL"])
def test_weights_of_one_byte_are_refused_by_name(drawing: TestClient, value: str):
    answer = drawn(
        drawing, 501, init_images=[encoded(noise(64, 64))], override_settings={"fp8_storage": value}
    )
    assert answer["detail"].startswith("option fp8_storage")
