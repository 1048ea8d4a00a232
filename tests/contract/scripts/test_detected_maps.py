"""What URL mode tells of the maps that ControlNet units detect while a script draws."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.contract.scripts.asking import plain, send

UNIT = {"module": "none", "model": "control_edges", "image": plain(colour="blue")}


@pytest.fixture(autouse=True)
def model(data_dir: Path) -> None:
    """A control model in name only."""
    folder = data_dir / "models" / "ControlNet"
    folder.mkdir(parents=True)
    (folder / "control_edges.safetensors").write_bytes(b"weights")


def maps_of(client: TestClient, script: str, args: list[Any], **body: Any) -> list[str]:
    scripts = {"controlnet": {"args": [UNIT]}, "save_dir": "nas"}
    response = send(client, script, args, alwayson_scripts=scripts, **body)
    assert response.status_code == 200, response.text
    return response.json()["parameters"]["image_mask_url"].split(",")


@pytest.mark.parametrize(
    ("script", "args", "body", "count"),
    [
        ("Prompt matrix", [], {"prompt": "a|b"}, 2),
        ("Prompts from file or textbox", [False, False, "start", "a\nb"], {}, 2),
        ("X/Y/Z plot", ["Steps", "1,2,3", None], {"n_iter": 2}, 6),
        ("Loopback", [2], {"init_images": [plain()]}, 2),
    ],
)
def test_each_iteration_has_its_map(
    client: TestClient, script: str, args: list[Any], body: dict[str, Any], count: int
):
    maps = maps_of(client, script, args, **body)
    assert len(set(maps)) == count
    for path in maps:
        assert "/nas/controlnet_mask/" in path
        with Image.open(path) as found:
            assert found.convert("RGB").getpixel((0, 0)) == (0, 0, 255)


def test_without_units_there_is_no_list_of_maps(client: TestClient):
    response = send(client, "Prompt matrix", [], prompt="a|b", alwayson_scripts={"save_dir": "nas"})
    assert "image_mask_url" not in response.json()["parameters"]
