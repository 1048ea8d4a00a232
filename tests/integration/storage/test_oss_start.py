"""What is wrong with a bucket is said at the start, in one sentence, with exit code 1."""

import datetime
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdapi.cli import main
from sdapi.services.storage.places import Places
from sdapi.services.storage.stores.by_url import Stores, start_problem
from sdapi.settings import Mount, Settings
from tests.oss.server import KEY, REGION, OssServer, oss_server
from tests.oss.signatures import Key

PREFIX = "oss://examplebucket/prefix"
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
EXPIRED = Key("STS.NExample", "secret", "token", token_ends=YESTERDAY)
READER = Key("LTAIReader", "secret", rights=frozenset({"read", "list"}))


@pytest.fixture
def oss(tmp_path: Path) -> Iterator[OssServer]:
    with oss_server(tmp_path / "buckets", keys=(KEY, EXPIRED, READER)) as server:
        yield server


class Start:
    """Starts a server that does not get far."""

    def __init__(
        self, data_dir: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._data_dir, self._patch, self._capsys = data_dir, patch, capsys

    def __call__(self, environ: dict[str, str], *flags: str) -> tuple[int, str]:
        """Its exit code and what it has to say."""
        for name in [name for name in os.environ if name.startswith(("OSS_", "AWS_"))]:
            self._patch.delenv(name)
        for name, value in environ.items():
            self._patch.setenv(name, value)
        code = main(["--port=0", "--data-dir", str(self._data_dir), *flags])
        return code, self._capsys.readouterr().err


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Start:
    return Start(tmp_path / "data", monkeypatch, capsys)


@pytest.mark.parametrize(
    ("changes", "prefix", "words"),
    [
        ({"OSS_ACCESS_KEY_ID": "LTAIwrong"}, PREFIX, "access key id is not known"),
        ({"OSS_ACCESS_KEY_SECRET": "wrong"}, PREFIX, "OSS_ACCESS_KEY_SECRET does not belong"),
        ({"OSS_REGION": "cn-beijing"}, PREFIX, "OSS_REGION is not the bucket's"),
        ({"OSS_SESSION_TOKEN": "wrong"}, PREFIX, "STS token is not valid"),
        ({"OSS_ACCESS_KEY_ID": ""}, PREFIX, "set OSS_ACCESS_KEY_ID"),
        ({"OSS_ENDPOINT": "http://a b"}, PREFIX, "is no address"),
        ({}, "oss://no-such-bucket/prefix", "no such bucket"),
        ({}, "oss://Bad_Bucket/prefix", "no bucket's name"),
        ({}, "oss://examplebucket/a//b", "empty part"),
    ],
)
def test_wrong_setup_is_one_sentence(
    start: Start, oss: OssServer, changes: dict[str, str], prefix: str, words: str
):
    for flags in (["--mount", f"/no/such/folder={prefix}"], ["--allow-oss", prefix]):
        code, text = start(oss.environ() | changes, *flags)
        assert code == (2 if words in ("no bucket's name", "empty part") else 1), text
        assert words in text
        assert KEY.secret not in text


@pytest.mark.parametrize("region", [None, REGION])
@pytest.mark.parametrize(
    ("key", "words"), [(EXPIRED, "STS token has expired"), (READER, "no permission")]
)
def test_keys_that_may_not_write_are_told(
    start: Start, oss: OssServer, region: str | None, key: Key, words: str
):
    code, sentence = start(oss.environ(key, region=region), "--allow-oss", PREFIX)
    assert (code, words in sentence) == (1, True), sentence


@pytest.mark.parametrize("region", [None, REGION])
def test_clock_that_is_wrong_is_told_with_the_difference(
    start: Start, oss: OssServer, region: str | None
):
    oss.clock_offset = datetime.timedelta(hours=1)
    code, sentence = start(oss.environ(region=region), "--allow-oss", PREFIX)
    assert code == 1
    assert "RequestTimeTooSkewed" in sentence
    assert "behind; set it" in sentence


def test_mount_that_uploads_itself_gets_no_links_and_says_so(tmp_path: Path):
    mount = Mount(tmp_path, PREFIX)
    settings = Settings(data_dir=tmp_path / "data", mounts=(mount,), sign_urls_s=60)
    said: list[str] = []
    places = Places(settings, is_on_fuse=lambda path: True)
    assert start_problem(settings, Stores({}), said.append, places) is None
    assert said == [
        f"--sign-urls: no links for {tmp_path}: it is a FUSE mount, which uploads itself"
    ]


def test_damaged_outbox_is_one_sentence(start: Start, oss: OssServer, tmp_path: Path):
    outbox = tmp_path / "data" / "outbox"
    outbox.mkdir(parents=True)
    (outbox / "uploads.db").write_bytes(b"no database" * 1000)
    code, sentence = start(oss.environ(), "--allow-oss", PREFIX)
    assert code == 1
    assert f"{outbox / 'uploads.db'}, cannot be used: file is not a database" in sentence
    assert sentence.count("\n") == 1
