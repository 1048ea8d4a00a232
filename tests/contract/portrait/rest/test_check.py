"""Checks of photos over the signed REST API, and what is refused before any work."""

import errno
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.contract.portrait.rest.signed_calls import (
    APP,
    CHECK,
    NO_MODEL,
    ONE_CALL,
    OTHER,
    OTHER_TOKEN,
    TRAIN,
    add_accounts,
    call,
    codes,
    told,
)
from tests.fakes import FakeEngines
from tests.photo_server import PhotoServer
from tests.portraits.people import PERSON


def test_one_persons_photos_pass_and_a_stranger_does_not(client: TestClient, photos: PhotoServer):
    urls = photos.of(*PERSON[:3], "turned", "stranger")
    response = call(client, CHECK, {"action": "AIGCImageCheck", "images": urls, "model_name": ""})
    assert codes(response) == [1, 1, 1, 1, 6]
    body = response.json()
    data = body["data"]
    assert list(data) == ["check_results", "cost_time", "images", "request_id"]
    assert data["images"] == urls
    assert data["request_id"] == body["request_id"]
    assert data["cost_time"] > 0
    assert [result["url"] for result in data["check_results"]] == urls
    assert [result["frontal"] for result in data["check_results"]] == [True] * 3 + [False] * 2
    assert data["check_results"][4] == {
        "code": 6,
        "frontal": False,
        "message": "This photo is not the same person in photos.",
        "url": urls[4],
    }


def test_each_photo_that_cannot_serve_has_its_code(client: TestClient, photos: PhotoServer):
    names = ("two", "nobody", "html", "broken", "empty", "missing", "huge", "bomb", "animated")
    urls = [*photos.of(*names), "xx.jpg", "", "ftp://a/b", "http://127.0.0.1:1/x"]
    response = call(client, CHECK, {"images": urls})
    assert codes(response) == [3, 3, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2]
    messages = {result["message"] for result in response.json()["data"]["check_results"]}
    assert messages == {"success", "Image decode error.", "Number of face is not 1."}


def test_the_go_clients_recorded_bytes_are_taken(client: TestClient):
    """The contract's vectors: bodies with a line feed at the end, and none at all."""
    recorded = [
        (
            CHECK,
            b'{"action":"AIGCImageCheck","images":["https://example.com/0.jpg"]}\n',
            "6ac2ff85dd37633fe7d17645c20f81f9acba2d74983d4631eab6b21031e3c138",
            (200, "OK", "success"),
        ),
        (
            "/api/v1/async_jobs/11002",
            b"",
            "dad6e4370898f3b8601a816b5dc90caf7f06918a8f8d44ca429698ea874854e4",
            (404, "PARAMETER_ERROR", "job not found"),
        ),
        (
            "/api/v1/async_jobs/11002",
            b"{}",
            "8099671140ef806c4e31ff7142b7c8e4e5f173e75921476b60971221e67bcfea",
            (404, "PARAMETER_ERROR", "job not found"),
        ),
    ]
    for path, body, signature, expected in recorded:
        headers = {
            "Authorization": f"{APP}:{signature}",
            "X-Request-Time": "1692693815",
            "User-Agent": "AI-Service-Go-Client/1.0.0/go",
        }
        response = client.post(path, content=body, headers=headers)
        assert told(response) == expected
    batch = "90f8733c7047fafbd40305cce4e4b09e534922386ef06a98f42ea1999ea88d4b"
    response = client.get("/api/v1/batch_jobs/3", headers={"Authorization": f"{APP}:{batch}"})
    assert told(response) == (404, "PARAMETER_ERROR", "job not found")


# --- errors before any work ---


@pytest.mark.parametrize("authorization", [None, "", APP, "nobody:sign", ":sign", "server-token"])
def test_an_unknown_appid_is_named_first(client: TestClient, authorization: str | None):
    headers = {} if authorization is None else {"Authorization": authorization}
    for path in (CHECK, "/api/v1/nothing"):
        response = client.post(path, content=b"no JSON", headers=headers)
        assert told(response) == (400, "PARAMETER_ERROR", "not found appid")


def test_a_forged_or_replayed_signature_is_refused(client: TestClient):
    body = {"images": []}
    wrong = (401, "PARAMETER_ERROR", "sign error")
    assert told(call(client, CHECK, body, token=OTHER_TOKEN)) == wrong
    assert told(call(client, CHECK, body, app=OTHER)) == wrong
    assert told(call(client, CHECK, body, signed_path=TRAIN)) == wrong
    assert told(call(client, CHECK, body, signed_body=b"")) == wrong
    assert told(call(client, CHECK, body, signed_path=CHECK.upper())) == wrong
    for signature in ("", "é", "0" * 64):
        headers = {"Authorization": f"{APP}:{signature}".encode()}
        assert told(client.post(CHECK, headers=headers)) == wrong


def test_what_is_not_portrait_is_not_found(client: TestClient):
    for path in ("/api/v1/ai_creation", "/api/v1/aigc_images/sd", "/api/v1/x/y"):
        assert told(call(client, path, {"images": ["u"]})) == NO_MODEL
    assert told(call(client, CHECK, {"images": ["u"], "model_name": "other"})) == NO_MODEL
    assert told(call(client, CHECK, method="GET")) == NO_MODEL
    for job in ("0", "-1", "x", "99999999999999999999", "1"):
        response = call(client, f"/api/v1/async_jobs/{job}", {})
        assert told(response) == (404, "PARAMETER_ERROR", "job not found")
        assert told(call(client, f"/api/v1/async_jobs/{job}", method="GET")) == told(response)
    php = call(client, "/batch_jobs/3", method="GET")
    assert told(php) == (404, "PARAMETER_ERROR", "job not found")


def test_a_quota_counts_calls_that_succeed(client: TestClient):
    over = (400, "EXCEEDED_QUOTA_ERROR", "exceeded quota")
    for _ in range(3):
        response = call(client, CHECK, {"images": []}, app=ONE_CALL)
        assert told(response) == (462, "error", "Image not provided")
    assert told(call(client, CHECK, {"images": ["x"]}, app=ONE_CALL)) == (200, "OK", "success")
    assert told(call(client, CHECK, b"no JSON", app=ONE_CALL)) == over
    response = call(client, "/api/v1/async_jobs/1", {}, app=ONE_CALL)
    assert told(response) == (404, "PARAMETER_ERROR", "job not found")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Invalid input data"),
        (b"no JSON", "Invalid input data"),
        (b"[1]", "Invalid input data"),
        (b"{'images': ['u']}", "Invalid input data"),
        ({"images": "u"}, "Invalid input data"),
        ({"images": [3]}, "Invalid input data"),
        ({"images": ["u"] * 51}, "Invalid input data"),
        ({}, "Image not provided"),
        ({"images": []}, "Image not provided"),
        ({"images": None}, "Image not provided"),
    ],
)
def test_a_body_that_cannot_serve_is_462(client: TestClient, body: object, message: str):
    assert told(call(client, CHECK, body)) == (462, "error", message)


def test_a_body_that_is_too_large_is_not_read(client: TestClient):
    response = call(client, CHECK, b" " * (1 << 20) + b"{}")
    assert told(response) == (413, "PARAMETER_ERROR", "request body too large")


def test_the_servers_token_is_for_the_status_page_alone(client: TestClient):
    assert client.get("/portrait/status").status_code == 401
    response = client.get("/portrait/status", headers={"Authorization": "server-token"})
    status = response.json()
    active = {row["role"]: row["name"] for row in status["providers"] if row["active"]}
    assert active == {
        "detector": "dlib",
        "landmarks": "dlib68",
        "embedder": "dlib-resnet",
        "matting": "grabcut",
        "swapper": "warp",
    }
    assert all(row["licence"] for row in status["providers"])
    assert status["services"] == {"check": True, "train": True, "create": True}
    # There is the demo checkpoint, and none of SDXL.
    both, none = {"train": True, "create": True}, {"train": False, "create": False}
    assert status["models"] == {"sd15": both, "xl": none}
    assert status["trainings"] == []


def test_private_addresses_are_never_asked(tmp_path: Path, photos: PhotoServer):
    settings = Settings(data_dir=tmp_path, portrait_processes=1)
    add_accounts(settings)
    before = len(photos.asked)
    with TestClient(build_app(settings, FakeEngines())) as client:
        urls = [
            *photos.of("person_0"),
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/x",
            "http://localhost/x",
            "file:///etc/passwd",
        ]
        response = call(client, CHECK, {"images": urls})
    assert codes(response) == [2] * 5
    assert len(photos.asked) == before


def test_a_stopping_server_answers_in_the_envelope(client: TestClient, photos: PhotoServer):
    state: Any = client.app.state  # pyright: ignore[reportAttributeAccessIssue]
    state.is_stopping = True
    try:
        for path in (CHECK, "/api/v1/async_jobs/1", "/batch_jobs/1"):
            refused = call(client, path, {"images": photos.of("person_0")})
            assert told(refused) == (503, "error", "the server is shutting down")
            assert int(refused.headers["retry-after"]) > 0
    finally:
        state.is_stopping = False


def test_a_face_process_that_cannot_be_started_is_no_fault_of_the_photos(
    tmp_path: Path, photos: PhotoServer, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    settings = Settings(data_dir=tmp_path, allow_private_urls=True, portrait_processes=1)
    add_accounts(settings)
    with (
        TestClient(build_app(settings, FakeEngines()), raise_server_exceptions=False) as running,
        monkeypatch.context() as patch,
    ):
        patch.setattr("sdapi.portrait.faces.processes.socket.socketpair", refuse)
        response = call(running, CHECK, {"images": photos.of("person_0", "person_1")}, app=ONE_CALL)
        assert response.status_code == 503
        assert "Too many open files" in response.json()["message"]
        assert int(response.headers["retry-after"]) > 0
        # The one call that the account may make is not gone.
        assert told(call(running, CHECK, {"images": ["x"]}, app=ONE_CALL))[0] == 200


def test_without_portrait_there_are_no_routes(tmp_path: Path):
    app = build_app(Settings(data_dir=tmp_path, portrait=False), FakeEngines())
    with TestClient(app) as client:
        assert call(client, CHECK, {}).json() == {"detail": "Not Found"}


def test_users_of_the_queue_can_be_deleted(client: TestClient):
    settings: Settings = client.app.state.services.settings  # pyright: ignore[reportAttributeAccessIssue]
    folder = settings.portrait_dir / "users" / "zhoumo"
    (folder / "original_backup").mkdir(parents=True)
    assert client.delete("/portrait/users/zhoumo").status_code == 401
    client.headers["authorization"] = "server-token"
    try:
        assert client.delete("/portrait/users/zhoumo").json() == {"user_id": "zhoumo"}
        assert not folder.exists()
        for name in ("zhoumo", "..%2Fx", "%2e%2e"):
            assert client.delete(f"/portrait/users/{name}").status_code in (404, 405)
    finally:
        del client.headers["authorization"]
