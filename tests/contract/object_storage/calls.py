"""Requests whose results or inputs are in a bucket."""

import io
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

BUCKET = "examplebucket"


MOUNT = Path("/code/stable-diffusion-webui/data-oss")


SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "seed": 100}


def ask(client: TestClient, body: dict[str, Any] | None = None, kind: str = "txt2img", **eas: Any):
    return client.post(f"/sdapi/v1/{kind}", json=SMALL | (body or {}) | {"alwayson_scripts": eas})


def picture(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def png(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def pending(client: TestClient) -> int:
    return client.get("/readyz").json()["outbox"]["pending"]


def saved_below(folder: str, **options: Any) -> dict[str, Any]:
    """A request that saves below the mount, where numbers alone tell names apart."""
    names = {"samples_filename_pattern": "picture", "save_to_dirs": False}
    folders = {"outdir_txt2img_samples": str(MOUNT / folder)}
    return {"save_images": True, "override_settings": names | folders | options}
