"""Passes that this process's own generation service draws."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdapi.errors import ModelUnusable, NanProduced, NoDevice, QueueFull, SDAPIError, ShuttingDown
from sdapi.portrait.creation.drawing.in_process import InProcessDrawer
from sdapi.portrait.creation.drawing.passes import Pass
from sdapi.portrait.creation.drawing.remote import RemoteDrawer
from sdapi.portrait.creation.drawing.webui import DrawingFailed, UnitsRefused, png_text
from sdapi.portrait.models.folders import LORA_MARK
from sdapi.services.container import Services
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import wait_ready

pytestmark = pytest.mark.anyio
PASS = Pass("a man", "", (64, 64), 2)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def services(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[Services]:
    made = Services.build(Settings(data_dir=tmp_path, no_hashing=True), FakeEngines(engine))
    made.start()
    await asyncio.to_thread(wait_ready, lambda: made.is_ready)
    yield made
    await asyncio.to_thread(made.close)


@pytest.mark.parametrize("error", [ShuttingDown("soon"), NoDevice("none")])
async def test_what_passes_is_no_failed_pass(
    services: Services, engine: FakeEngine, error: SDAPIError
):
    engine.failure = lambda job: error
    drawer = InProcessDrawer(services)
    with pytest.raises(type(error)):
        await drawer.draw(PASS)
    for failure in (NanProduced("not a number"), ZeroDivisionError()):
        engine.failure = lambda job, failure=failure: failure
        with pytest.raises(DrawingFailed):
            await drawer.draw(PASS)


async def test_a_pass_has_a_deadline(
    services: Services, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sdapi.portrait.creation.drawing.in_process.PASS_TIMEOUT_S", 0.2)
    engine.delay_s = 30.0
    with pytest.raises(DrawingFailed, match="no picture within"):
        await InProcessDrawer(services).draw(PASS)
    while engine.is_running.is_set():  # its job has been told to stop
        await asyncio.sleep(0.01)


class FullFor:
    """A generation service that has no place for a while."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def answer(self, *asked: object) -> dict[str, object]:
        self.times -= 1
        if self.times >= 0:
            raise QueueFull("as many jobs wait as may")
        return {"images": [png_text(np.zeros((64, 64, 3), np.uint8))]}


async def test_a_portrait_that_has_begun_waits_for_its_place_until_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(QueueFull, "retry_after_s", 0.001)
    drawer = InProcessDrawer(SimpleNamespace(generation=FullFor(100)))
    assert (await drawer.draw(PASS)).rgb.shape == (64, 64, 3)
    monkeypatch.setattr("sdapi.portrait.creation.drawing.in_process.PASS_TIMEOUT_S", 0.2)
    drawer = InProcessDrawer(SimpleNamespace(generation=FullFor(10**9)))
    with pytest.raises(QueueFull):
        await drawer.draw(PASS)


async def test_a_unit_whose_model_is_of_no_use_is_the_units_fault(
    services: Services, engine: FakeEngine
):
    broken = "cut.safetensors: the file is cut off"
    engine.failure = lambda job: ModelUnusable(f"alwayson_scripts.controlnet.args.1: {broken}")
    with pytest.raises(UnitsRefused, match="cut off") as refused:
        await InProcessDrawer(services).draw(PASS)
    assert refused.value.number == 1
    engine.failure = lambda job: ModelUnusable(broken)  # a checkpoint's, or a VAE's
    with pytest.raises(DrawingFailed, match="cut off") as failed:
        await InProcessDrawer(services).draw(PASS)
    assert not isinstance(failed.value, UnitsRefused)


async def test_control_models_are_told_apart_by_the_texts_they_read(services: Services):
    folder = services.settings.controlnet_dirs[0]
    folder.mkdir(parents=True, exist_ok=True)
    for name, layer, width in (
        ("a", "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 768),
        ("b", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight", 2048),
        ("c", "ip_adapter.1.to_k_ip.weight", 1024),
        ("d", "conv_in.weight", 3),
    ):
        save_file({layer: np.zeros((1, width))}, folder / f"{name}.safetensors")
    (folder / "e.pth").write_bytes(b"")
    (folder / "f.safetensors").write_bytes(b"cut")
    has_controlnet = SimpleNamespace(names=lambda kind: ["ControlNet"])
    inventory = await InProcessDrawer(replace(services, scripts=has_controlnet)).inventory()
    own = {"sdapi-demo-canny", "sdapi-demo-tile"}  # the demo checkpoint is what draws
    assert set(inventory.control_models) == {"a", "b", "c", "d", "e", "f"} | own
    assert inventory.control_kinds == {"a": "sd15", "b": "xl", "c": "other"}
    assert inventory.controls_for("xl") == ("b",)


async def test_a_person_trained_on_another_server_is_found(services: Services, tmp_path: Path):
    drawer = InProcessDrawer(services)
    folder = services.settings.lora_dirs[0]
    folder.mkdir(parents=True, exist_ok=True)
    own = tmp_path / "portrait" / "users" / "anna" / "lora.safetensors"
    assert await drawer.lora("anna", own) is None
    own.parent.mkdir(parents=True)
    save_file({"a": np.zeros(1)}, own)
    (folder / "anna.safetensors").symlink_to(own)
    assert await drawer.lora("anna", own) == "anna"


@pytest.mark.parametrize("broken", [b"", b"cut", bytes(range(256)) * 40, "truncated"])
@pytest.mark.parametrize("place", ["own", "link"])
async def test_weights_that_cannot_be_read_are_as_good_as_none(
    services: Services, tmp_path: Path, broken: bytes | str, place: str
):
    own = tmp_path / "portrait" / "users" / "anna" / "lora.safetensors"
    path = own if place == "own" else services.settings.lora_dirs[0] / "anna.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": np.zeros(1000)}, path)
    services.networks.refresh()
    assert await InProcessDrawer(services).lora("anna", own) is not None
    path.write_bytes(path.read_bytes()[:4000] if isinstance(broken, str) else broken)
    assert await InProcessDrawer(services).lora("anna", own) is None
    missing = RemoteDrawer("http://127.0.0.1:1", "=").lora("anna", path)
    assert await missing is None


async def test_an_interrupted_pass_says_so(services: Services, engine: FakeEngine):
    engine.delay_s = 30
    drawing = asyncio.ensure_future(InProcessDrawer(services).draw(PASS))
    await asyncio.to_thread(engine.is_running.wait, 10)
    task = services.tasks.running
    assert task is not None
    services.tasks.cancel(task)
    (warning,) = (await drawing).warnings
    assert warning.startswith("interrupted: ")


@pytest.mark.parametrize(
    "other", ["sub/anna.safetensors", "anna.pt", "anna.ckpt", "../LyCORIS/anna.safetensors"]
)
@pytest.mark.parametrize("is_linked", [True, False])
async def test_another_file_of_the_name_is_never_drawn_with(
    services: Services, engine: FakeEngine, tmp_path: Path, other: str, is_linked: bool
):
    folder = services.settings.lora_dirs[0]
    own = tmp_path / "portrait" / "users" / "anna" / "lora.safetensors"
    for path in (own, folder / other):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"a": np.zeros(1)}, path)
    if is_linked:
        (folder / "anna.safetensors").symlink_to(own)
    services.networks.refresh()
    drawer = InProcessDrawer(services)
    name = await drawer.lora("anna", own)
    await drawer.draw(replace(PASS, prompt=f"anna, <lora:{name}:0.9>"))
    drawn_with = [file.path.resolve() for file in engine.jobs[-1].networks.loras.values()]
    assert drawn_with == [own.resolve()]


async def test_a_stranger_of_the_name_is_nobody_whose_weights_are_gone(
    services: Services, tmp_path: Path
):
    other = services.settings.lora_dirs[0] / "sub" / "anna.safetensors"
    other.parent.mkdir(parents=True)
    save_file({"a": np.zeros(1)}, other)
    assert await InProcessDrawer(services).lora("anna", tmp_path / "lora.safetensors") is None


async def test_nobodys_weights_serve_as_a_style(services: Services):
    folder = services.settings.lora_dirs[0]
    folder.mkdir(parents=True, exist_ok=True)
    for name, metadata in {
        "lcm-lora-sdv1-5": {},
        "my-lcm": {LORA_MARK: "users-my-lcm"},
        "FilmVelvia3": {LORA_MARK: "users-FilmVelvia3", "ss_output_name": "FilmVelvia3"},
    }.items():
        save_file({"a": np.zeros(1)}, folder / f"{name}.safetensors", metadata)
    inventory = await InProcessDrawer(services).inventory()
    assert inventory.style_loras == {"lcm-lora-sdv1-5"}
