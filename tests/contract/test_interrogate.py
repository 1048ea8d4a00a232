"""interrogate, with a tag model of random weights and without any."""

from pathlib import Path

import torch
from starlette.testclient import TestClient

from sdapi.engine.interrogate.deepdanbooru import TagNetwork
from tests.contract.scripts.asking import plain


def ask(client: TestClient, model: str) -> tuple[int, str]:
    response = client.post("/sdapi/v1/interrogate", json={"image": plain(), "model": model})
    body = response.json()
    return response.status_code, body["caption" if response.status_code == 200 else "detail"]


def test_missing_files_are_named(client: TestClient, data_dir: Path):
    status, words = ask(client, "deepdanbooru")
    assert status == 503
    assert str(data_dir / "models/torch_deepdanbooru/model-resnet_custom_v3.pt") in words
    assert ask(client, "clip")[0] == 503
    assert ask(client, "gpt") == (404, "Model not found")


def test_deepdanbooru_tells_tags_of_a_local_file(client: TestClient, data_dir: Path):
    folder = data_dir / "models" / "torch_deepdanbooru"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    weights = TagNetwork(4, 2).state_dict()
    torch.save({"tags": ["a_cat", "a_dog"], **weights}, folder / "model-resnet_custom_v3.pt")
    client.post("/sdapi/v1/options", json={"interrogate_deepbooru_score_threshold": 0.0})
    assert ask(client, "deepdanbooru") == (200, "a cat, a dog")
    client.post("/sdapi/v1/options", json={"deepbooru_filter_tags": "a dog"})
    assert ask(client, "deepdanbooru") == (200, "a cat")
