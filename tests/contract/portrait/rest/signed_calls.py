"""Signed calls of the portrait REST API, and accounts to sign them with."""

import json
import uuid
from typing import Any

import anyio
from starlette.testclient import TestClient

from sdapi.portrait.state.records import Account
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.wire.signature import sign
from sdapi.settings import Settings

APP, TOKEN = "20230001", "0123456789abcdef0123456789abcdef"
OTHER, OTHER_TOKEN = "20230002", "fedcba9876543210fedcba9876543210"
SD15_ONLY, ONE_CALL = "20230003", "20230004"
CHECK, TRAIN, CREATE = (f"/api/v1/aigc_images/{name}" for name in ("check", "train", "create"))
NO_MODEL = (404, "PARAMETER_ERROR", "model not found")
ID = "fa4ba43a-df55-45a4-9c31-bb0dc1e51234"


def add_accounts(settings: Settings) -> None:
    async def add() -> None:
        store = SqlitePortraitStore(settings.state_file)
        await store.open()
        await store.add_account(Account(APP, TOKEN))
        await store.add_account(Account(OTHER, OTHER_TOKEN))
        await store.add_account(Account(SD15_ONLY, TOKEN, ("sd15",)))
        await store.add_account(Account(ONE_CALL, TOKEN, quota=1))
        await store.close()

    anyio.run(add)


def call(
    client: TestClient,
    path: str,
    body: object = None,
    *,
    app: str = APP,
    token: str = TOKEN,
    method: str = "POST",
    signed_path: str | None = None,
    signed_body: bytes | None = None,
) -> Any:
    """A signed call; `body` is bytes as sent, or what Python's client would make of it."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    made = sign(token, method, signed_path or path, data if signed_body is None else signed_body)
    headers = {"Authorization": f"{app}:{made}", "Accept": "text/plain"}
    return client.request(method, path, content=data, headers=headers)


def told(response: Any) -> tuple[int, str, str]:
    """Status, code and message; an error's data is an object."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert list(body) == ["request_id", "code", "message", "data"]
    assert str(uuid.UUID(body["request_id"])) == body["request_id"]
    assert isinstance(body["data"], dict)
    return response.status_code, body["code"], body["message"]


def codes(response: Any) -> list[int]:
    assert told(response) == (200, "OK", "success")
    return [result["code"] for result in response.json()["data"]["check_results"]]
