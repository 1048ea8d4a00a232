"""What must not happen on the event loop, where it would hold up every other request.

Disk access is heard of by an audit hook of Python's, work on pixels by hooks around Pillow's.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.contract.scripts.asking import plain, send

#: what Python tells audit hooks of disk access, which `os.stat` is not part of
_DISK = ("glob.", "open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.scandir")
_PIXELS = ("convert", "copy", "crop", "paste", "resize", "tobytes", "transpose")
_MATRIX, _LINES, _PLOT = "Prompt matrix", "Prompts from file or textbox", "X/Y/Z plot"


class Watch:
    """Remembers what was done on a thread whose event loop runs, while it listens."""

    def __init__(self) -> None:
        self.listens = False
        self.heard: list[str] = []

    def tell(self, what: str) -> None:
        if self.listens and _is_on_loop():
            self.heard.append(what)


def _is_on_loop() -> bool:
    """Whether this thread runs callbacks of an event loop right now."""
    import asyncio

    return asyncio._get_running_loop() is not None


@functools.cache
def _audited() -> Watch:
    """One for the process: an audit hook stays for good."""
    watch = Watch()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watch.listens and event.startswith(_DISK):
            watch.tell(f"{event} {arguments[:1]}")

    sys.addaudithook(hook)
    return watch


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch = _audited()
    watch.heard.clear()

    def heard(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            watch.tell(f"{name} {[str(each) for each in args[:2]]}")
            return work(*args, **options)

        return wrapper

    for name in _PIXELS:
        monkeypatch.setattr(Image.Image, name, heard(name, getattr(Image.Image, name)))
    monkeypatch.setattr(Image, "new", heard("new", Image.new))
    monkeypatch.setattr(os, "stat", heard("stat", os.stat))
    yield watch
    watch.listens = False


@pytest.fixture
def client(data_dir: Path, serve: Serve) -> TestClient:
    """A server whose folders hold something to look at."""
    for folder in ("ESRGAN", "hypernetworks", "Lora", "VAE"):
        (data_dir / "models" / folder).mkdir()
        (data_dir / "models" / folder / "file.pt").write_bytes(b"weights")
    (data_dir / "styles.csv").write_text("name,prompt,negative_prompt\nbold,bold,\n")
    return serve()


def quiet(watch: Watch, client: TestClient, script: str, args: list[Any], **body: Any) -> None:
    """Have a picture drawn, and hear nothing of it."""
    response = listened(watch, lambda: send(client, script, args, **body))
    assert response.status_code == 200, response.text[:1000]


def listened(watch: Watch, ask: Callable[[], Any]) -> Any:
    """The second answer to a request: what is imported or read once at first may be."""
    ask()
    watch.listens = True
    response = ask()
    watch.listens = False
    assert watch.heard == []
    return response


def test_the_watch_hears(watch: Watch, tmp_path: Path):
    async def work() -> None:
        Image.new("L", (1, 1))
        (tmp_path / "file").write_bytes(b"")

    import anyio

    watch.listens = True
    anyio.run(work)
    assert len(watch.heard) == 2


@pytest.mark.parametrize(
    ("script", "args", "body"),
    [
        ("", [], {}),
        ("", [], {"save_images": True, "n_iter": 2}),
        ("", [], {"init_images": [plain()], "mask": plain(colour="white")}),
        ("", [], {"prompt": "a <lora:none:1>"}),
        (_MATRIX, [], {"prompt": "a|b|c"}),
        (_LINES, [False, False, "start", "a\n--prompt b --sd_model one"], {}),
        (_PLOT, ["Steps", "1,2", None, "Checkpoint name", "one", None], {"save_images": True}),
        ("Loopback", [2, 0.5], {"init_images": [plain()]}),
        ("Outpainting mk2", ["", 8, 0, ["left"]], {"init_images": [plain()], "n_iter": 2}),
        ("Poor man's outpainting", [8, 0], {"init_images": [plain()]}),
        ("SD upscale", ["", 16, "Lanczos", 2.0], {"init_images": [plain()]}),
        ("img2img alternative test", [], {"init_images": [plain()]}),
    ],
)
@pytest.mark.parametrize("eas", [{}, {"save_dir": "tmp"}], ids=["images", "urls"])
def test_requests_keep_pixels_and_disk_off_the_loop(
    watch: Watch,
    client: TestClient,
    script: str,
    args: list[Any],
    body: dict[str, Any],
    eas: dict[str, str],
):
    quiet(watch, client, script, args, alwayson_scripts=eas, **body)


def test_models_for_init_images_are_looked_for_off_the_loop(watch: Watch, client: TestClient):
    options = {"upscaler_for_img2img": "Lanczos", "save_init_img": True}
    quiet(watch, client, "", [], init_images=[plain()], override_settings=options)


def test_infotexts_are_read_off_the_loop(watch: Watch, client: TestClient):
    infotext = 'a <lora:x:1>\nSteps: 1, Sampler: Euler, Size: 64x64, Lora hashes: "x: abc"'
    quiet(watch, client, "", [], infotext=infotext)


@pytest.mark.parametrize(
    "path",
    [
        *("options", "sd-models", "sd-vae", "loras", "hypernetworks", "embeddings", "upscalers"),
        *("prompt-styles", "script-info", "scripts", "face-restorers", "cmd-flags", "memory"),
    ],
)
def test_lists_are_made_off_the_loop(watch: Watch, client: TestClient, path: str):
    assert listened(watch, lambda: client.get(f"/sdapi/v1/{path}")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("options", {"sd_model_checkpoint": "one", "sd_vae": "None"}, 200),
        ("options", {"sd_model_checkpoint": "gone [01234567]"}, 422),
        ("extra-single-image", {"image": plain(), "upscaler_1": "Lanczos"}, 200),
        ("png-info", {"image": plain()}, 200),
        ("interrogate", {"image": plain()}, 503),
        ("refresh-checkpoints", {}, 200),
        ("refresh-loras", {}, 200),
        ("reload-checkpoint", {}, 200),
        ("unload-checkpoint", {}, 200),
        ("create/embedding", {"name": "", "num_vectors_per_token": 1, "overwrite_old": True}, 200),
    ],
)
def test_actions_keep_pixels_and_disk_off_the_loop(
    watch: Watch, client: TestClient, path: str, body: dict[str, Any], status: int
):
    response = listened(watch, lambda: client.post(f"/sdapi/v1/{path}", json=body))
    assert response.status_code == status, response.text[:1000]
