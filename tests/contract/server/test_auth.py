import base64
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.contract.conftest import Serve

TOKEN = "Zm9vYmFyMTIzNDU2Nzg5MA=="


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def status(client: TestClient, authorization: str | None = None, path: str = "/sdapi/v1/samplers"):
    headers = {} if authorization is None else {"authorization": authorization}
    return client.get(path, headers=headers).status_code


def test_open_server_asks_nobody(client: TestClient):
    assert status(client) == 200
    assert status(client, "anything") == 200


@pytest.mark.parametrize("header", [TOKEN, f"Bearer {TOKEN}", f"bearer {TOKEN}"])
def test_token_is_taken_bare_and_as_bearer(serve: Serve, header: str):
    assert status(serve(token=TOKEN), header) == 200


@pytest.mark.parametrize("header", [None, "", "x", f"Basic {TOKEN}", f"{TOKEN}x", TOKEN[:-1]])
def test_anything_else_than_the_token_is_refused(serve: Serve, header: str | None):
    assert status(serve(token=TOKEN), header) == 401


def test_users_log_in_with_their_passwords(serve: Serve):
    client = serve(api_auth=(("user", "pass"), ("ann", "se:cret")))
    assert status(client, basic("user", "pass")) == 200
    assert status(client, basic("ann", "se:cret")) == 200
    assert status(client, basic("user", "se:cret")) == 401
    assert status(client, basic("ann", "pass")) == 401


def test_with_both_either_is_enough(serve: Serve):
    client = serve(api_auth=(("user", "pass"),), token=TOKEN)
    assert status(client, TOKEN) == 200
    assert status(client, basic("user", "pass")) == 200
    assert status(client, basic("user", "wrong")) == 401
    assert status(client) == 401


@pytest.mark.parametrize("settings", [{"api_auth": (("user", "pass"),)}, {"token": TOKEN}])
def test_browsers_are_asked_for_a_password_but_not_by_the_queue(
    serve: Serve, settings: dict[str, Any]
):
    client = serve(**settings)
    for path in ("/", "/docs", "/sdapi/v1/samplers"):
        assert client.get(path).headers["www-authenticate"] == 'Basic realm="sdapi"'
    queue = client.get("/api/queue")
    assert queue.status_code == 401
    assert "www-authenticate" not in queue.headers


def test_browser_that_sends_the_token_as_password_gets_the_pages(serve: Serve):
    client = serve(token=TOKEN)
    for path in ("/", "/docs", "/sdapi/v1/samplers"):
        assert status(client, basic("anyone", TOKEN), path) == 200
        assert status(client, basic("anyone", TOKEN[:-1]), path) == 401


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (None, "Not authenticated"),
        (basic("user", "wrong"), "Incorrect username or password"),
        ("Basic !!!", "Invalid authentication credentials"),
    ],
)
def test_refusal_is_in_the_webuis_words(serve: Serve, header: str | None, detail: str):
    client = serve(api_auth=(("user", "pass"),))
    headers = {"authorization": header} if header else {}
    response = client.get("/sdapi/v1/samplers", headers=headers)
    body = response.json()
    assert response.status_code == 401
    assert (body["error"], body["detail"], body["code"]) == (
        "HTTPException",
        detail,
        "unauthorized",
    )


#: without credentials; portraits have a signature of their own
OPEN = {"/healthz": 200, "/readyz": 200, "/login": 422}
DISCOVERY = re.compile(r"/upstreams/")
SIGNED = re.compile(r"/api/v1/(aigc_images|async_jobs|models)/")


def test_every_route_but_health_and_login_is_closed(serve: Serve):
    client = serve(token=TOKEN)
    paths = client.app.openapi()["paths"]  # type: ignore[attr-defined]
    asked = [(method, path) for path, methods in paths.items() for method in methods]
    asked += [("get", path) for path in ("/", "/docs", "/openapi.json", "/redoc", "/nowhere")]
    asked += [("get", "/docs-assets/swagger-ui.css")]
    assert len(asked) > 12
    for method, path in asked:
        expected = OPEN.get(path, 401)
        if DISCOVERY.search(path):
            expected = 200
        answer = client.request(method, path.replace("{service}", "sd_async"))
        if SIGNED.match(path):
            told = (answer.status_code, answer.json()["message"])
            assert told == (400, "not found appid"), path
        else:
            assert answer.status_code == expected, path


def test_preflight_needs_no_credentials(serve: Serve):
    client = serve(token=TOKEN, cors_origins=("https://studio.example",))
    asked = {"origin": "https://studio.example", "access-control-request-method": "POST"}
    response = client.options("/sdapi/v1/txt2img", headers=asked)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://studio.example"
