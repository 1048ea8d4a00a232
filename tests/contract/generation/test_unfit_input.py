"""Files and numbers that cannot work: each a clear answer, and the server goes on as before."""

import base64
import io
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.models.networks import kohya_lora, make_tiny
from tests.servers import golden_data_dir, in_process

PLAIN = {"prompt": "a cat", "steps": 2, "seed": 1, "subseed": 2, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def data_dir(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden models, and beside them some that cannot be used."""
    folder = golden_data_dir(tmp_path_factory.mktemp("unfit") / "data", golden)
    loras, checkpoints = folder / "models" / "Lora", folder / "models" / "Stable-diffusion"
    whole = (golden / "models" / "tinylora.safetensors").read_bytes()
    (loras / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (loras / "noise.safetensors").write_bytes(b"\x07" * 5000)
    tiny = make_tiny("sdxl", folder.parent)
    save_file(kohya_lora(tiny), loras / "foreign.safetensors")
    (folder / "models" / "VAE" / "none.vae.safetensors").write_bytes(whole)
    weights = load_file(golden / "models" / "tinyA.safetensors")
    name = "model.diffusion_model.out.2.weight"
    save_file(
        weights | {name: torch.full_like(weights[name], float("nan"))},
        checkpoints / "nan.safetensors",
    )
    (checkpoints / "nan.yaml").write_bytes((golden / "models" / "tinyA.yaml").read_bytes())
    return folder


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[TestClient]:
    settings = Settings(data_dir=data_dir, ckpt="tinyA")
    with in_process(build_app(settings), raise_server_exceptions=False) as one:
        yield one


@pytest.fixture(scope="module")
def plain(client: TestClient) -> str:
    """The picture that must come out before and after everything."""
    return drawn(client)["images"][0]


def drawn(client: TestClient, status: int = 200, kind: str = "txt2img", **body: Any) -> Any:
    response = client.post(f"/sdapi/v1/{kind}", json=PLAIN | body)
    assert response.status_code == status, response.text
    return response.json()


def encoded(size: tuple[int, int], mode: str = "RGB") -> str:
    out = io.BytesIO()
    Image.new(mode, size, 255 if mode == "L" else "red").save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def pixels(text: str) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(text))).tobytes()


@pytest.mark.parametrize("name", ["cut", "noise"])
def test_lora_that_is_broken_is_a_warning_beside_the_picture_without_it(
    client: TestClient, plain: str, name: str
):
    answer = drawn(client, prompt=f"a cat <lora:{name}:1>")
    (warning,) = answer["warnings"]
    assert warning.startswith("lora not used: ")
    assert name in warning
    assert pixels(answer["images"][0]) == pixels(plain)


def test_lora_for_another_architecture_is_a_warning_that_counts_its_layers(
    client: TestClient, plain: str
):
    answer = drawn(client, prompt="a cat <lora:foreign:1>")
    (warning,) = answer["warnings"]
    assert re.fullmatch(r"lora foreign: \d+ of its \d+ layers do not fit", warning)
    assert drawn(client)["images"][0] == plain


@pytest.mark.parametrize("name", ["cut", "noise", "foreign"])
def test_the_same_lora_is_an_error_where_an_option_says_so(
    client: TestClient, plain: str, name: str
):
    strict = {"sdapi_strict_networks": True}
    answer = drawn(client, 422, prompt=f"a cat <lora:{name}:1>", override_settings=strict)
    assert name in answer["detail"]
    assert drawn(client)["images"][0] == plain


def test_embedding_of_another_width_is_a_warning(client: TestClient, plain: str):
    answer = drawn(client, prompt="wrongdim")
    assert any("wrongdim" in warning for warning in answer["warnings"])
    assert drawn(client)["images"][0] == plain


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"override_settings": {"sd_vae": "none.vae.safetensors"}}, "none.vae.safetensors"),
        ({"width": 0, "height": 0}, "width: 0 is too small"),
        ({"width": 16_000, "height": 16_000}, "16000x16000 is more than 64 megapixels"),
        ({"steps": 0}, "steps: 0 is too few"),
        ({"steps": 10_001}, "steps: 10001 is too many; at most 10000"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(
    client: TestClient, plain: str, body: dict[str, Any], words: str
):
    assert words in drawn(client, 422, **body)["detail"]
    assert drawn(client)["images"][0] == plain


def test_mask_of_another_size_is_stretched_or_refused_by_name(client: TestClient, plain: str):
    body = {"init_images": [encoded((64, 64))], "mask": encoded((32, 48), "L")}
    whole = drawn(client, kind="img2img", **body, inpaint_full_res=False)
    assert len(whole["images"]) == 1
    only = drawn(client, 422, kind="img2img", **body)
    assert "mask: it has 32x48 pixels and an init image 64x64" in only["detail"]
    assert drawn(client)["images"][0] == plain


def test_weights_that_make_nans_are_told_and_another_checkpoint_draws(
    client: TestClient, plain: str
):
    answer = drawn(client, 500, override_settings={"sd_model_checkpoint": "nan"})
    assert answer["code"] == "nan_produced"
    assert "Unet" in answer["detail"]
    assert drawn(client)["images"][0] == plain


def test_ten_thousand_steps_are_drawn_until_somebody_interrupts(client: TestClient, plain: str):
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(drawn(client, steps=10_000, force_task_id="long"))
    )
    asking.start()
    end = time.monotonic() + 120
    while client.get("/sdapi/v1/progress?id_task=long").json()["state"]["sampling_step"] < 5:
        assert time.monotonic() < end
        time.sleep(0.05)
    client.post("/sdapi/v1/interrupt")
    asking.join(120)
    assert len(answers[0]["images"]) == 1
    assert drawn(client)["images"][0] == plain
