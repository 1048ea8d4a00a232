"""Handshakes at a server that listens."""

import logging
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines
from tests.servers import listening

TOKEN = "a-token"
PROGRESS = "/sdapi/v1/progress/ws?id_task=one"
WATCH = "/api/predict/{}/sink?_watch_=true"


@pytest.mark.parametrize(
    ("path", "token", "status", "said"),
    [
        (PROGRESS, None, 401, "Not authenticated"),
        (WATCH.format("sd_async"), None, 401, "Authorization Failed"),
        (WATCH.format("nobody"), TOKEN, 404, "there is no service 'nobody'"),
    ],
)
def test_a_refused_handshake_is_told_why_and_is_no_error_in_the_log(
    data_dir: Path,
    engine: FakeEngine,
    caplog: pytest.LogCaptureFixture,
    path: str,
    token: str | None,
    status: int,
    said: str,
):
    caplog.set_level(logging.INFO)
    settings = Settings(data_dir=data_dir, token=TOKEN)
    headers = {} if token is None else {"authorization": token}
    with listening(build_app(settings, FakeEngines(engine)), settings) as url:
        address = url.replace("http", "ws") + path
        with pytest.raises(InvalidStatus) as refusal:
            connect(address, additional_headers=headers)
    answer = refusal.value.response
    assert (answer.status_code, said in (answer.body or b"").decode()) == (status, True)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
    told = [r.getMessage() for r in caplog.records if "websocket refused" in r.getMessage()]
    assert told == [f"websocket refused with {status}: {path.partition('?')[0]!r}"]
