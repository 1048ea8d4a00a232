"""Calls to the queue of the service `svc`, and the file of the service `small`."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

U = "/api/predict/svc"


SINK = f"{U}/sink"


BODY = b'{"prompt": "a cat", "width": 64, "height": 64, "seed": 7}'


def put(client: TestClient, url: str = SINK, data: bytes = b"abc", **params: Any) -> httpx.Response:
    answer = client.post(url, content=data, params=params)
    assert answer.status_code == 200, answer.text
    return answer


def attributes(client: TestClient, url: str = SINK) -> dict[str, str]:
    return client.get(url, params={"_attrs_": "true"}).json()


def items(client: TestClient, url: str = SINK, **params: Any) -> list[dict[str, Any]]:
    given = {"_raw_": "false", "_auto_delete_": "false", "_length_": "100"} | params
    answer = client.get(url, params=given)
    return answer.json() if answer.status_code == 200 else []


def data(item: dict[str, Any]) -> bytes:
    return base64.b64decode(item["data"])


def service_file(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "metadata": {"name": "small", "type": "Async"},
        "containers": [{"image": "x/stable-diffusion-webui:3.2", "port": 8000}],
    }
    path = folder / "service.json"
    path.write_text(json.dumps(content | changes))
    return path
