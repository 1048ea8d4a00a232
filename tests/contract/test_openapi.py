"""The published description, against the one that was agreed on.

After a wanted change: `python -m tests.contract.test_openapi` writes `openapi.json` anew.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

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
            assert set(operation["tags"]) <= tags | {"portrait"}, path


def test_documented_requests_can_be_sent_as_they_are(client: TestClient):
    content = described()
    for path in ("txt2img", "img2img", "extra-single-image", "extra-batch-images"):
        operation = content["paths"][f"/sdapi/v1/{path}"]["post"]
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        example = content["components"]["schemas"][name.rpartition("/")[2]]["examples"][0]
        answer = client.post(f"/sdapi/v1/{path}", json=example)
        assert answer.status_code == 200, answer.text[:500]


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(described(), indent=1) + "\n", encoding="utf-8")
