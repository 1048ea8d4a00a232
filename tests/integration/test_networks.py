"""Networks through the whole server: good ones, and files that cannot be used."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.models.networks import write_network
from tests.servers import golden_data_dir, in_process

NAME = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
BODY = {"steps": 1, "width": 64, "height": 64, "seed": 3, "cfg_scale": 5}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = golden_data_dir(tmp_path_factory.mktemp("networks") / "data")
    loras, checkpoints = path / "models" / "Lora", path / "models" / "Stable-diffusion"
    torch.manual_seed(0)
    write_network(loras / "good.safetensors", {f"{NAME}.diff": torch.randn(32, 32)})
    write_network(loras / "nan.safetensors", {f"{NAME}.diff": torch.full((32, 32), torch.nan)})
    write_network(loras / "sdxl.safetensors", {"lora_te2_text_model_x.diff": torch.ones(2)})
    (loras / "broken.safetensors").write_bytes(b"broken")
    write_network(path / "embeddings" / "wide.safetensors", {"emb": torch.ones(1, 768)})
    write_network(path / "embeddings" / "word.safetensors", {"emb": torch.ones(2, 64)})
    (path / "models" / "VAE" / "none.safetensors").write_bytes(b"none")
    weights = load_file(checkpoints / "tinyA.safetensors")
    key = "model.diffusion_model.out.2.weight"
    save_file(weights | {key: weights[key] * torch.nan}, checkpoints / "nan.safetensors")
    (checkpoints / "nan.yaml").write_bytes((checkpoints / "tinyA.yaml").read_bytes())
    return path


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[TestClient]:
    app = build_app(Settings(data_dir=data_dir, ckpt="tinyA"))
    with in_process(app, raise_server_exceptions=False) as running:
        yield running


@pytest.fixture(scope="module")
def plain(client: TestClient) -> str:
    return draw(client, "a cat").json()["images"][0]


def draw(client: TestClient, prompt: str, **options: Any) -> Any:
    body = BODY | {"prompt": prompt, "override_settings": options | {"enable_pnginfo": False}}
    return client.post("/sdapi/v1/txt2img", json=body)


def infotext(answer: Any) -> str:
    return json.loads(answer["info"])["infotexts"][0]


def test_lora_changes_the_picture_and_the_next_is_as_before(client: TestClient, plain: str):
    answer = draw(client, "a cat <lora:good:1>").json()
    assert answer["images"][0] != plain
    assert 'Lora hashes: "good: ' in infotext(answer)
    assert "warnings" not in answer
    assert draw(client, "a cat").json()["images"][0] == plain


@pytest.mark.parametrize(
    ("tag", "warning"),
    [
        ("<lora:broken:1>", "lora not used: broken.safetensors: not a whole safetensors file"),
        ("<lora:nan:1>", "lora not used: nan.safetensors: "),
        ("<lora:sdxl:1>", "lora not used: sdxl fits no layer of this checkpoint"),
        ("<lora:good:much>", "<lora:good>: the strength 'much' is no number"),
    ],
)
def test_lora_that_cannot_be_used_is_a_warning_or_where_asked_an_error(
    client: TestClient, plain: str, tag: str, warning: str
):
    answer = draw(client, f"a cat{tag}").json()
    assert answer["images"][0] == plain
    assert [text.startswith(warning) for text in answer["warnings"]] == [True]
    refused = draw(client, f"a cat{tag}", sdapi_strict_networks=True)
    assert refused.status_code == 422
    assert warning in refused.json()["detail"]
    assert draw(client, "a cat").json()["images"][0] == plain


def test_embedding_is_told_and_one_of_another_width_is_a_warning(client: TestClient, plain: str):
    answer = draw(client, "a word").json()
    assert 'TI hashes: "word: ' in infotext(answer)
    answer = draw(client, "a wide cat").json()
    assert answer["warnings"] == [
        "embedding not used: wide has vectors of 768, this checkpoint's have 64"
    ]
    assert "TI hashes" not in infotext(answer)
    refused = draw(client, "a wide cat", sdapi_strict_networks=True)
    assert (refused.status_code, refused.json()["code"]) == (422, "model_unusable")


@pytest.mark.parametrize(
    ("option", "status", "text"),
    [
        ({"sd_vae": "none.safetensors"}, 422, "none.safetensors: not a whole safetensors file"),
        ({"sd_model_checkpoint": "nan"}, 500, "NaN"),
    ],
)
def test_model_that_cannot_be_used_is_named_and_the_server_goes_on(
    client: TestClient, plain: str, option: dict[str, str], status: int, text: str
):
    answer = draw(client, "a cat", **option)
    assert answer.status_code == status
    assert text in answer.json()["detail"]
    assert draw(client, "a cat").json()["images"][0] == plain


def test_embedding_that_is_put_there_is_known_to_the_next_request(
    client: TestClient, data_dir: Path
):
    assert "TI hashes" not in infotext(draw(client, "a latecomer").json())
    write_network(data_dir / "embeddings" / "latecomer.safetensors", {"emb": torch.ones(1, 64)})
    assert 'TI hashes: "latecomer: ' in infotext(draw(client, "a latecomer").json())
