"""Numbers that clients send by mistake, through to the engine: never a 5xx."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.servers import golden_data_dir, in_process

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "seed": 1, "prompt": "a cat"}
ODD: list[dict[str, Any]] = [
    {"width": 16, "height": 16},
    {"width": 8, "height": 8},
    {"width": 8, "height": 64, "override_settings": {"token_merging_ratio": 0.5}},
    {"scheduler": "Beta", "override_settings": {"beta_dist_alpha": 0}},
    {"scheduler": "Karras", "override_settings": {"rho": 1e-6}},
    {"scheduler": "Polyexponential", "override_settings": {"rho": -3}},
    {"eta": -3, "sampler_name": "DPM fast"},
    {"eta": 1e3, "sampler_name": "DDIM"},
    {"seed": -7, "sampler_name": "DPM++ SDE"},
    {"width": 77, "height": 65},
    {"steps": 1, "sampler_name": "DPM++ 2M Karras"},
    {"steps": 1, "sampler_name": "DPM++ SDE"},
    {"steps": 1, "sampler_name": "DDIM"},
    {"steps": 10**9},
    {"cfg_scale": -3},
    {"cfg_scale": 0},
    {"cfg_scale": 1e4},
    {"seed": 2**64 - 1, "batch_size": 2},
    {"seed": -(2**63)},
    {"seed": 2**64 - 1, "override_settings": {"randn_source": "NV"}},
    {"subseed_strength": 1.5, "subseed": 3},
    {"subseed_strength": -1, "subseed": 3},
    {"seed_resize_from_w": 1, "seed_resize_from_h": 1},
    {"seed_resize_from_w": 10**6, "seed_resize_from_h": 10**6},
    {"eta": -1, "sampler_name": "Euler a"},
    {"eta": 1e9, "sampler_name": "Euler a"},
    {"s_churn": 1e9},
    {"s_churn": -1},
    {"s_noise": 0},
    {"s_tmax": -1},
    {"prompt": "[a:b:1e999] [c|d::-3]"},
    {"prompt": "(a:1e5) (b:-99999)"},
    {"prompt": "(" * 2000},
    {"prompt": "word " * 5000},
    {"prompt": "(a:1..2)"},
    {"override_settings": {"CLIP_stop_at_last_layers": 99}},
    {"override_settings": {"CLIP_stop_at_last_layers": -1}},
    {"override_settings": {"CLIP_stop_at_last_layers": "x"}},
    {"override_settings": {"sigma_min": -5}, "scheduler": "Karras"},
    {"override_settings": {"sigma_max": 1e9}, "scheduler": "Karras"},
    {"override_settings": {"rho": -0.5}, "scheduler": "Karras"},
    {"override_settings": {"eta_noise_seed_delta": 2**70}},
    {"override_settings": {"comma_padding_backtrack": -5}, "prompt": "a, " * 50},
    {"override_settings": {"n_rows": 10**6}, "batch_size": 2, "save_images": True},
    {"override_settings": {"samples_format": 7}, "save_images": True},
]
ODD_IMG2IMG: list[dict[str, Any]] = [
    {"denoising_strength": 0},
    {"denoising_strength": 1.5},
    {"denoising_strength": -0.5},
    {"denoising_strength": -0.5, "sampler_name": "DDIM"},
    {"denoising_strength": 0, "sampler_name": "DDIM"},
    {"denoising_strength": 0, "override_settings": {"img2img_fix_steps": True}},
    {"denoising_strength": 1e-6, "override_settings": {"img2img_fix_steps": True}},
    {"resize_mode": 9},
    {"resize_mode": 3},
    {"initial_noise_multiplier": -1},
    {"init_images": []},
    {"init_images": [""]},
    {"init_images": [7]},
    {"init_images": [None]},
    {"override_settings": {"img2img_background_color": "no colour"}},
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    data_dir: Path = golden_data_dir(tmp_path_factory.mktemp("odd") / "data")
    app = build_app(Settings(data_dir=data_dir, ckpt="tinyA"))
    with in_process(app, raise_server_exceptions=False) as running:
        yield running


def assert_no_fault_of_ours(client: TestClient, kind: str, body: dict[str, Any]) -> None:
    response = client.post(f"/sdapi/v1/{kind}", json=SMALL | body)
    assert response.status_code < 500, response.text[:400]
    assert client.post("/sdapi/v1/txt2img", json=SMALL).status_code == 200


def shown(body: dict[str, Any]) -> str:
    return str(body)[:60]


MANY_STEPS = {"steps": 1001, "sampler_name": "DDIM", "width": 16, "height": 16}


@pytest.mark.parametrize(
    "body", [*ODD, pytest.param(MANY_STEPS, marks=pytest.mark.slow)], ids=shown
)
@pytest.mark.timeout(120)
def test_odd_txt2img_is_drawn_or_refused(client: TestClient, body: dict[str, Any]):
    assert_no_fault_of_ours(client, "txt2img", body)


@pytest.mark.parametrize("body", ODD_IMG2IMG, ids=shown)
def test_odd_img2img_is_drawn_or_refused(client: TestClient, body: dict[str, Any]):
    out = io.BytesIO()
    Image.new("RGBA", (64, 48), (9, 99, 200, 80)).save(out, "PNG")
    init = {"init_images": [base64.b64encode(out.getvalue()).decode()]}
    assert_no_fault_of_ours(client, "img2img", init | body)
