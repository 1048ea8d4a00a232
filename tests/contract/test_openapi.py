"""The published description, against the one that was agreed on.

After a wanted change: `python -m tests.contract.test_openapi` writes `openapi.json` anew.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.fakes import FakeEngines

SNAPSHOT = Path(__file__).with_name("openapi.json")


def described() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        app = build_app(Settings(data_dir=Path(folder)), FakeEngines())
        content = json.loads(json.dumps(app.openapi()))
    del content["info"]["version"]
    return content


def test_description_is_the_one_agreed_on():
    assert described() == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_every_operation_says_what_it_does_and_what_its_parameters_mean():
    content = described()
    tags = {tag["name"] for tag in content["tags"]}
    for path, operations in content["paths"].items():
        for operation in operations.values():
            assert operation.get("description"), path
            assert operation["summary"].strip(), path
            assert set(operation["tags"]) <= tags, path
            for parameter in operation.get("parameters", []):
                assert parameter.get("description") or parameter.get("schema"), path


def test_documented_requests_can_be_sent_as_they_are(client: TestClient):
    content = described()
    for path in ("txt2img", "img2img", "extra-single-image", "extra-batch-images"):
        operation = content["paths"][f"/sdapi/v1/{path}"]["post"]
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        example = content["components"]["schemas"][name.rpartition("/")[2]]["examples"][0]
        answer = client.post(f"/sdapi/v1/{path}", json=example)
        assert answer.status_code == 200, answer.text[:500]


def test_queue_calls_and_portraits_are_described():
    paths = described()["paths"]
    listed = {path: set(operations) for path, operations in paths.items()}
    assert listed["/api/predict/{service}"] == {"get", "post", "put", "delete"}
    assert listed["/api/predict/{service}/sink"] == {"get", "put", "delete"}
    assert listed["/api/v1/async_jobs/{job_id}"] == {"get", "post"}
    asked = {p["name"] for p in paths["/api/predict/{service}/sink"]["get"]["parameters"]}
    assert {"_index_", "_timeout_", "_auto_delete_", "_watch_"} <= asked


@pytest.mark.parametrize(
    ("settings", "missing"),
    [({"portrait": False}, "/api/v1/aigc_images/check"), ({"role": "worker"}, "/api/predict")],
)
def test_what_a_server_does_not_answer_is_not_described(
    tmp_path: Path, settings: dict[str, Any], missing: str
):
    app = build_app(Settings(data_dir=tmp_path, **settings), FakeEngines())
    assert [path for path in app.openapi()["paths"] if path.startswith(missing)] == []


def test_every_route_with_a_json_body_tells_of_bodies_that_cannot_be_read(client: TestClient):
    count = 0
    for path, operations in described()["paths"].items():
        for method, operation in operations.items():
            takes_json = "application/json" in operation.get("requestBody", {}).get("content", {})
            if not takes_json or path.startswith("/api/"):
                continue
            count += 1
            assert "unreadable_body" in operation["responses"]["400"]["description"], path
            headers = {"content-type": "application/json"}
            answer = client.request(method, path, content=b'"\xff"', headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (400, "unreadable_body"), path
    assert count > 10


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(described(), indent=1) + "\n", encoding="utf-8")
