"""Tokens and signatures of services, and discovery."""

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.contract.queue.calls import BODY, SINK, U, service_file


@pytest.fixture
def guarded(serve: Serve) -> TestClient:
    return serve(services=("svc", "other"), token="all==", service_tokens={"svc": "dG9rZW4="})


def test_a_services_token_opens_it_in_every_form(guarded: TestClient):
    for header in ("dG9rZW4=", "Bearer dG9rZW4=", "all=="):
        for url in (U, SINK):
            answer = guarded.get(f"{url}?_attrs_=true", headers={"authorization": header})
            assert (header, answer.status_code) == (header, 200)


def test_a_wrong_token_is_401_with_the_text_of_the_original(guarded: TestClient):
    for header in ("", "wrong", "Bearer x", "EAS x", "Basic eDp5", "dG9rZW4"):
        headers = {"authorization": header} if header else {}
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = guarded.request(method, f"{U}?_indexes_=1", headers=headers)
            assert (answer.status_code, answer.text) == (401, "Authorization Failed")
            assert "www-authenticate" not in answer.headers


def test_a_services_token_opens_no_other_service_nor_the_api(guarded: TestClient):
    headers = {"authorization": "dG9rZW4="}
    assert guarded.get("/api/predict/other?_attrs_=true", headers=headers).status_code == 401
    assert guarded.get("/sdapi/v1/samplers", headers=headers).status_code == 401


def test_a_signature_is_checked_against_the_body(guarded: TestClient):
    headers = {
        "authorization": "EAS MxeHiHj+9kIEEEuBxiTyoGBtvFg=",
        "content-type": "application/octet-stream",
        "date": "Mon, 01 Jan 2024 00:00:00 GMT",
    }
    assert guarded.post(U, content=b'{"prompt":"a"}', headers=headers).status_code == 200
    assert guarded.post(U, content=b'{"prompt":"b"}', headers=headers).status_code == 401


def test_discovery_is_open_and_tells_the_address_that_was_asked(guarded: TestClient):
    for path in (
        "/api/v1/servicediscovery/upstreams/svc",
        "/exported/apis/eas.alibaba-inc.k8s.io/v1/upstreams/svc?internal=true",
    ):
        answer = guarded.get(path, headers={"host": "10.0.0.7:8123"}).json()
        assert answer == {"endpoints": {"items": [{"ip": "10.0.0.7", "port": 8123, "weight": 100}]}}
    assert guarded.get("/api/v1/servicediscovery/upstreams/nobody").status_code == 404


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        (f"{U}/x/y?task_id=1", f"{U}/x/y?task_id=1"),
        (f"{U}/x/y?task_id=1", f"{U}/x/y"),
        (f"{U}/x/y?task_id=1", U),
        (f"{U}/x%20y?a=%20b", f"{U}/x%20y?a=%20b"),
        (f"{U}/x%20y", f"{U}/x%20y"),
        (f"{U}/x%20y", f"{U}/x y"),
        ("/api/predict/g.svc/x", "/api/predict/g.svc"),
        ("/api/predict/g.svc/x", "/api/predict/g.svc/x"),
    ],
)
def test_more_or_less_of_the_address_may_be_signed(guarded: TestClient, url: str, resource: str):
    for path, status in ((resource, 200), (f"{resource}x", 401)):
        headers = signed(path, b"{}")
        assert guarded.post(url, content=b"{}", headers=headers).status_code == status


def signed(
    path: str, body: bytes, content_type: str = "application/octet-stream"
) -> dict[str, str]:
    """The headers of a signed POST, with the token of `svc`."""
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    text = f"POST\n{hashlib.md5(body).hexdigest()}\n{content_type}\n{date}\n{path}"
    key = hmac.new(b"dG9rZW4=", text.encode(), hashlib.sha1).digest()
    return {
        "authorization": f"EAS {base64.b64encode(key).decode()}",
        "content-type": content_type,
        "date": date,
    }


@pytest.mark.parametrize("resource", ["", "/sdapi/v1/txt2img"])
def test_a_signed_call_of_a_synchronous_service_is_answered(
    serve: Serve, tmp_path: Path, resource: str
):
    path = service_file(tmp_path, metadata={"name": "svc", "rpc": {"keepalive": 3000}})
    client = serve(service_files=(path,), service_tokens={"svc": "dG9rZW4="})
    url = f"{U}/sdapi/v1/txt2img"
    headers = signed(U + resource, BODY, "application/json")
    answer = client.post(url, content=BODY, headers=headers)
    assert (answer.status_code, len(answer.json()["images"])) == (200, 1)
    assert client.post(url, content=BODY + b" ", headers=headers).status_code == 401
