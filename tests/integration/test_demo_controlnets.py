"""The ControlNets that ship with the demo checkpoint: listed, and shapes follow them."""

import base64
import io
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import requests
from PIL import Image

from tests.pictures import decoded
from tests.servers import ServerProcess, server_process
from tools.demo_model.measuring.agreement import edge_agreement
from tools.demo_model.pictures.dataset import UNSEEN, Picture, render_number
from tools.demo_model.training.control import edges

SIDE = 256
PROMPT = "a photo of a person"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("demo") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def wanted() -> Picture:
    return render_number(UNSEEN, SIDE, 0)


@pytest.fixture(scope="module")
def free(server: ServerProcess) -> Picture:
    """What the prompt alone draws."""
    return draw(server, None)


def draw(server: ServerProcess, unit: Mapping[str, object] | None) -> Picture:
    scripts = {"controlnet": {"args": [unit]}} if unit else {}
    body = {"prompt": PROMPT, "steps": 12, "width": SIDE, "height": SIDE, "seed": 3, "cfg_scale": 5}
    answer = requests.post(
        f"{server.url}/sdapi/v1/txt2img", json={**body, "alwayson_scripts": scripts}, timeout=120
    )
    assert answer.status_code == 200, answer.text
    return np.asarray(decoded(answer.json()["images"][0]).convert("RGB"))


def encoded(picture: Picture) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def outlines(picture: Picture) -> Picture:
    return edges(picture, 100.0, 200.0, SIDE)


def test_both_are_listed_while_the_demo_draws(server: ServerProcess):
    models = requests.get(f"{server.url}/controlnet/model_list", timeout=30).json()["model_list"]

    names = sorted(model.split(" ")[0] for model in models)
    assert names == ["sdapi-demo-canny", "sdapi-demo-tile"]


@pytest.mark.parametrize(
    ("module", "model"), [("canny", "canny"), ("tile_resample", "tile")], ids=["canny", "tile"]
)
def test_shapes_follow(
    server: ServerProcess, wanted: Picture, free: Picture, module: str, model: str
):
    unit = {"module": module, "model": model, "image": encoded(wanted), "processor_res": SIDE}

    agreement = edge_agreement(outlines(draw(server, unit)), outlines(wanted))

    assert agreement > max(0.6, 2.0 * edge_agreement(outlines(free), outlines(wanted)))
