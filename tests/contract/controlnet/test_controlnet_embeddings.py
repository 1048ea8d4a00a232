"""Reference and IP-Adapter units as clients send them, before an engine that paints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from sdapi.engine.control.control_stages import ControlStages
from sdapi.images import encode_png, to_base64
from tests.fakes import FakeEngine

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "seed": 100}
PICTURE = to_base64(encode_png(Image.new("RGB", (48, 32), "teal"), {}))
MODEL = "ip-adapter-plus_sd15"
ENCODER = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"


@pytest.fixture(autouse=True)
def models(data_dir: Path) -> Path:
    """Adapters in name only; the engine here reads none."""
    folder = data_dir / "models"
    (folder / "ControlNet").mkdir(parents=True)
    for name in (MODEL, "ip-adapter_sdxl", "ip-adapter-faceid_sd15", "unheard_of"):
        (folder / "ControlNet" / f"{name}.safetensors").write_bytes(name.encode())
    return folder


@pytest.fixture
def encoders(models: Path) -> Path:
    folder = models / "clip_vision"
    folder.mkdir()
    (folder / ENCODER).write_bytes(b"h")
    (folder / "bigG").mkdir()
    (folder / "bigG" / "model.safetensors").write_bytes(b"g")
    return folder


def ask(client: TestClient, **unit: Any) -> tuple[int, dict[str, Any]]:
    scripts = {"controlnet": {"args": [{"image": PICTURE} | unit]}}
    response = client.post("/sdapi/v1/txt2img", json=SMALL | {"alwayson_scripts": scripts})
    return response.status_code, response.json()


def unit_of(engine: FakeEngine) -> Any:
    (stages,) = (s for s in engine.jobs[-1].stages if isinstance(s, ControlStages))
    (unit,) = stages.units
    return unit


@pytest.mark.parametrize("module", ["reference_only", "reference_adain", "reference_adain+attn"])
def test_reference_needs_no_model(client: TestClient, engine: FakeEngine, module: str) -> None:
    status, body = ask(client, module=module, threshold_a=0.25)

    assert status == 200, body
    unit = unit_of(engine)
    assert (unit.module, unit.model, unit.threshold_a) == (module, None, 0.25)
    assert unit.hint.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("module", "model", "acting", "encoder"),
    [
        ("ip-adapter-auto", MODEL, "ip-adapter_clip_sd15", ENCODER),
        ("ip-adapter-auto", "ip-adapter_sdxl", "ip-adapter_clip_sdxl", "model.safetensors"),
        ("ip-adapter_clip_h", MODEL, "ip-adapter_clip_sd15", ENCODER),
        ("ip-adapter_clip_g", MODEL, "ip-adapter_clip_sdxl", "model.safetensors"),
        ("ip-adapter_clip_sdxl_plus_vith", MODEL, "ip-adapter_clip_sdxl_plus_vith", ENCODER),
    ],
)
@pytest.mark.usefixtures("encoders")
def test_preprocessor_chooses_the_image_encoder(
    client: TestClient, engine: FakeEngine, module: str, model: str, acting: str, encoder: str
) -> None:
    status, body = ask(client, module=module, model=model)

    assert status == 200, body
    unit = unit_of(engine)
    assert (unit.module, unit.encoder.path.name) == (acting, encoder)
    assert len(body["images"]) == 2  # the map is the picture


@pytest.mark.usefixtures("encoders")
def test_several_pictures_are_one_unit(client: TestClient, engine: FakeEngine) -> None:
    status, _ = ask(client, module="ip-adapter-auto", model=MODEL, image=[{"image": PICTURE}] * 3)

    assert status == 200
    assert [each.shape[:2] for each in unit_of(engine).pictures] == [(32, 48)] * 3


@pytest.mark.usefixtures("encoders")
def test_mask_of_a_picture_reaches_the_encoder(client: TestClient, engine: FakeEngine) -> None:
    half = Image.new("L", (48, 32), 0)
    half.paste(255, (0, 0, 24, 32))

    ask(client, module="ip-adapter-auto", model=MODEL, mask=to_base64(encode_png(half, {})))

    (picture,) = unit_of(engine).pictures
    assert np.array_equal(picture[:, :, 3], np.asarray(half))


def test_missing_encoder_is_named_with_its_folder(client: TestClient, models: Path) -> None:
    status, body = ask(client, module="ip-adapter-auto", model=MODEL)

    assert (status, body["code"]) == (422, "annotator_missing")
    assert ENCODER in body["detail"]
    assert str(models / "clip_vision") in body["detail"]


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        ({"module": "ip-adapter-auto", "model": "unheard_of"}, "not found in ipadapter presets"),
        ({"module": "ip-adapter-auto", "model": "ip-adapter-faceid_sd15"}, "is not supported"),
        ({"module": "ip-adapter_face_id", "model": MODEL}, "is not supported"),
        ({"module": "revision_clipvision"}, "is not supported"),
        ({"module": "clip_vision", "model": MODEL}, "is not supported"),
        ({"module": "instant_id_face_embedding", "model": MODEL}, "is not supported"),
        ({"module": "densepose", "model": MODEL}, "is not supported"),
        ({"module": "pidinet", "model": MODEL}, "table5_pidinet.pth"),
        ({"module": "ip-adapter-auto"}, "You have not selected any ControlNet Model"),
        ({"module": "ip-adapter-auto", "model": MODEL, "ipadapter_input": "eA=="}, "not read"),
    ],
)
def test_unit_that_cannot_be_prepared_says_why(
    client: TestClient, unit: dict[str, Any], reason: str
) -> None:
    status, body = ask(client, **unit)

    assert status == 422
    assert reason in body["detail"]
    assert "alwayson_scripts.controlnet.args.0" in body["detail"]


@pytest.mark.parametrize(
    ("module", "reason"),
    [("hed", "ControlNetHED.pth"), ("dw_openpose_full", "yolox_l.onnx"), ("densepose", "not supp")],
)
def test_detect_names_the_file_that_is_missing(
    client: TestClient, module: str, reason: str
) -> None:
    body = {"controlnet_module": module, "controlnet_input_images": [PICTURE]}

    response = client.post("/controlnet/detect", json=body)

    assert response.status_code == 422
    assert reason in response.json()["detail"]
