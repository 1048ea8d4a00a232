"""Requests that choose a script, of a server that paints each picture in the colour of its seed."""

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from tests.pictures import decoded

SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 1, "seed": 10, "subseed": 1}


def encoded(image: Image.Image) -> str:
    """A picture as clients send one."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def plain(width: int = 64, height: int = 64, colour: str = "red") -> str:
    """A picture of one colour, as clients send one."""
    return encoded(Image.new("RGB", (width, height), colour))


@dataclass(frozen=True)
class Answered:
    """An answer with its parts read."""

    body: dict[str, Any]

    @property
    def info(self) -> dict[str, Any]:
        return json.loads(self.body["info"])

    @property
    def images(self) -> list[Image.Image]:
        return [decoded(text).convert("RGB") for text in self.body["images"]]

    @property
    def seeds(self) -> list[int]:
        """The seeds that the pictures' colours tell."""
        return [image.getpixel((0, 0))[0] for image in self.images]  # type: ignore[index]


def ask(client: TestClient, script: str, args: list[Any], **body: Any) -> Answered:
    """The answer to a request that chooses a script; img2img where it brings pictures."""
    response = send(client, script, args, **body)
    assert response.status_code == 200, response.text[:1000]
    return Answered(response.json())


def send(client: TestClient, script: str, args: list[Any], **body: Any) -> Any:
    path = "img2img" if "init_images" in body else "txt2img"
    chosen = {"script_name": script, "script_args": args}
    return client.post(f"/sdapi/v1/{path}", json=SMALL | chosen | body)


def refusal(client: TestClient, script: str, args: list[Any], **body: Any) -> str:
    """Why a request is refused as the client's mistake."""
    response = send(client, script, args, **body)
    assert response.status_code == 422, response.text[:1000]
    return response.json()["detail"]
