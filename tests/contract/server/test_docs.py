"""The pages that describe the API, as a browser loads them."""

import re
from pathlib import Path

import pytest
import requests

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import listening

PREFIX = "/sd"


@pytest.mark.parametrize(("page", "least"), [("docs", 3), ("redoc", 2)])
def test_pages_ask_for_their_files_below_the_prefix_of_the_proxy(
    data_dir: Path, engine: FakeEngine, page: str, least: int
):
    settings = Settings(data_dir=data_dir, subpath=PREFIX)
    with listening(build_app(settings, FakeEngines(engine)), settings) as url:
        text = requests.get(f"{url}/{page}", timeout=10).text
        asked = re.findall(r"""["'](/[\w./-]+\.(?:js|css|json))["']""", text)
        assert len(asked) >= least
        for path in asked:
            assert path.startswith(f"{PREFIX}/")
            through_proxy = url + path.removeprefix(PREFIX)
            assert requests.get(through_proxy, timeout=10).status_code == 200


def test_requests_tried_out_on_the_page_go_below_the_prefix(data_dir: Path, engine: FakeEngine):
    settings = Settings(data_dir=data_dir, subpath=PREFIX)
    with listening(build_app(settings, FakeEngines(engine)), settings) as url:
        described = requests.get(f"{url}/openapi.json", timeout=10).json()
    assert described["servers"] == [{"url": PREFIX}]
    assert "/sdapi/v1/txt2img" in described["paths"]
