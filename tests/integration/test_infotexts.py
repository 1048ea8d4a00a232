"""What infotexts tell of how texts were encoded, and read back, through the whole server."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.services.container import Services
from sdapi.settings import Settings
from tests.models.networks import write_network
from tests.servers import golden_data_dir, in_process

BODY = {"steps": 6, "width": 64, "height": 64, "seed": 3, "cfg_scale": 5}
UNIT = "Module: canny, Model: control [d14c016b], Weight: 0.5, Pixel Perfect: True"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    path = golden_data_dir(tmp_path_factory.mktemp("infotexts") / "data")
    write_network(path / "models" / "Lora" / "mine.safetensors", {})
    app = build_app(Settings(data_dir=path, ckpt="tinyA"))
    with in_process(app) as running:
        yield running


def draw(client: TestClient, **body: Any) -> tuple[str, str]:
    """The picture and its infotext."""
    answer = client.post("/sdapi/v1/txt2img", json=BODY | body).json()
    return answer["images"][0], json.loads(answer["info"])["infotexts"][0]


def test_a_picture_of_old_edits_is_drawn_again_from_its_own_text(client: TestClient):
    old = {"use_old_scheduling": True}
    edit = "[a photo of a cat:a black dog, night:1.0]"
    picture, told = draw(client, prompt=edit, override_settings=old)
    assert "Old prompt editing timelines: True" in told
    answer = client.post("/sdapi/v1/txt2img", json={"infotext": told}).json()
    assert json.loads(answer["info"])["infotexts"] == [told]
    assert answer["images"] == [picture]


def test_old_edits_are_not_told_where_they_change_nothing(client: TestClient):
    old = {"use_old_scheduling": True}
    assert "Old prompt" not in draw(client, prompt="[a cat:a dog:0.5]", override_settings=old)[1]


@pytest.mark.parametrize(
    ("prompt", "has"),
    [
        ("(a) cat", True),
        (r"\(a\) cat", True),
        ("[a:b:0.5] (x)", True),
        ("[a:b:0.5] cat", False),
        ("[a|b] cat", False),
        ("a <foo:(x)> cat", False),
    ],
)
def test_emphasis_is_told_of_texts_as_they_are_encoded(client: TestClient, prompt: str, has: bool):
    told = draw(client, prompt=prompt, override_settings={"emphasis": "No norm"})[1]
    assert ("Emphasis: No norm" in told) is has


def png_info(client: TestClient, text: str) -> dict[str, Any]:
    """The parameters of a picture with this infotext."""
    chunks, out = PngImagePlugin.PngInfo(), io.BytesIO()
    chunks.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=chunks)
    body = {"image": base64.b64encode(out.getvalue()).decode()}
    return client.post("/sdapi/v1/png-info", json=body).json()["parameters"]


def test_png_info_takes_the_units_of_a_text_apart(client: TestClient):
    read = png_info(client, f'a cat\nSteps: 1, Sampler: Euler, Seed: 3, ControlNet 1: "{UNIT}"')
    assert read["ControlNet 1"] == UNIT
    assert read["ControlNet 1 module"] == "canny"
    assert read["ControlNet 1 model"] == "control [d14c016b]"
    assert (read["ControlNet 1 weight"], read["ControlNet 1 pixel_perfect"]) == (0.5, True)


def test_png_info_calls_a_lora_as_it_is_called_here(client: TestClient):
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    lora = services.networks.lora("mine")
    services.networks.hashes.compute(lora.path).result()
    told = f'Lora hashes: "theirs: {services.networks.shorthash(lora)}"'
    read = png_info(client, f"a <lora:theirs:0.5>\nSteps: 1, Sampler: Euler, Seed: 3, {told}")
    assert read["Prompt"] == "a <lora:mine:0.5>"
