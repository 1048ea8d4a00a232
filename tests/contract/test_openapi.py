"""The published description, against the one that was agreed on.

After a wanted change: `python -m tests.contract.test_openapi` writes `openapi.json` anew.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

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


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(described(), indent=1) + "\n", encoding="utf-8")
