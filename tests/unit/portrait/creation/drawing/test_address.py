"""Where portraits are drawn: what the product's variables mean."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.flags import parse
from sdapi.portrait.creation.drawing.address import elsewhere
from sdapi.settings import Settings, SettingsError, settings_from
from tests.fakes import FakeEngines

OWN = {7860, 8000}


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "http://127.0.0.1:8000",
        "http://localhost:7860/",
        "http://[::1]:8000",
        "http://0.0.0.0:8000",
    ],
)
def test_nothing_and_our_own_ports_are_this_server(url: str | None):
    assert elsewhere(url, "=", OWN) is None


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8001", "http://example.com:8000", "https://h/api/predict/sd"]
)
def test_everything_else_is_another(url: str):
    address = elsewhere(url, "=", OWN)
    assert address is not None
    assert (address.url, address.authorization) == (url, "=")


@pytest.mark.parametrize("url", ["ftp://h/x", "webui:8000", "http://", "http://h:port"])
def test_what_is_no_address_is_named(url: str):
    with pytest.raises(SettingsError, match="URL"):
        elsewhere(url, None, OWN)


def test_the_products_variables_are_read_together(tmp_path: Path):
    def url_of(environ: dict[str, str], *flags: str) -> str | None:
        return settings_from(parse(flags, environ), tmp_path).portrait_url

    both = {"URL": "http://sd:8000", "AUTHORIZATION": "="}
    assert url_of(both) == "http://sd:8000"
    assert url_of({"URL": "http://sd:8000"}) is None
    assert url_of({**both, "URL": "not for us"}) is None
    assert url_of(both, "--portrait-url=http://other") == "http://other"


def test_a_service_files_own_web_ui_is_this_server(tmp_path: Path):
    """The document's file: the web UI is its second container."""

    def content(url: str) -> str:
        variables = [{"name": "URL", "value": url}, {"name": "AUTHORIZATION", "value": "="}]
        infer = {"image": "x/photog_pub:infer.1.0.0.pub", "env": variables, "port": 7861}
        webui = {"image": "x/stable-diffusion-webui:3.2", "port": 8000}
        metadata = {"name": "photog_pre_pmml", "type": "Async"}
        return json.dumps({"metadata": metadata, "containers": [infer, webui]})

    path = tmp_path / "service.json"
    settings = Settings(data_dir=tmp_path, service_files=(path,))
    for url, drawn_at in (("http://127.0.0.1:8000", None), ("http://sd:1", "http://sd:1")):
        path.write_text(content(url))
        with TestClient(build_app(settings, FakeEngines())) as client:
            assert client.get("/portrait/status").json()["drawn_at"] == drawn_at
    path.write_text(content("sd"))
    with pytest.raises(SettingsError, match="URL"):
        build_app(settings, FakeEngines())
