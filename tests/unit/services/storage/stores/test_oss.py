"""The store against a server that verifies what `oss2` signs, by both versions."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from sdapi.object_url import ObjectUrl
from sdapi.services.storage.stores import oss as oss_module
from sdapi.services.storage.stores.oss import OssStore
from sdapi.services.storage.stores.oss_config import ConfigError, OssConfig
from sdapi.services.storage.stores.store import Reason, StoreError
from tests.oss.crc64 import crc64
from tests.oss.faults import Fault
from tests.oss.server import KEY, REGION, OssServer, oss_server
from tests.oss.signatures import Key

BUCKET = "examplebucket"
ODD = "a b+c&d=e?f#g%41;:@$,'()*!~ü中\U0001f600.png"
STS = Key("STS.NExample", "secret", "CAIS+token/==")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OssServer]:
    with oss_server(tmp_path / "buckets", keys=(KEY, STS)) as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.png"
    path.write_bytes(os.urandom(1000))
    return path


def store_of(server: OssServer, key: Key = KEY, region: str | None = None) -> OssStore:
    return OssStore(OssConfig.from_environ(server.environ(key, region=region)))


def url(key: str) -> ObjectUrl:
    return ObjectUrl("oss", BUCKET, key)


def reason_of(error: pytest.ExceptionInfo[StoreError]) -> Reason:
    return error.value.reason


def test_our_checksum_is_the_published_one():
    assert crc64(b"123456789") == 0x995DC9BBDF1939FA


@pytest.mark.parametrize("region", [None, REGION])
@pytest.mark.parametrize("key", [KEY, STS], ids=["key", "sts"])
def test_objects_of_any_name_go_and_come(
    server: OssServer, file: Path, key: Key, region: str | None
):
    store = store_of(server, key, region)
    store.check(url("folder"))
    for name in (ODD, f"folder/{ODD}", "plain"):
        store.put(url(name), file, replaces=True)
        assert server.objects.data(BUCKET, name) == file.read_bytes()
        assert store.read(url(name), max_bytes=1000) == file.read_bytes()
        link = store.signed(url(name), 60)
        assert requests.get(link, timeout=10).content == file.read_bytes()
    assert sorted(store.names(url("folder"))) == [ODD]
    assert sorted(store.names(url(""))) == sorted([ODD, "plain"])
    assert store.head(url(ODD)).size_bytes == 1000
    assert server.objects.find(BUCKET, ODD).content_type == "image/png"


def test_large_files_go_in_parts_and_a_broken_part_goes_again(
    server: OssServer, file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(oss_module, "MULTIPART_BYTES", 300_000)
    monkeypatch.setattr(oss_module, "PART_BYTES", 200_000)
    file.write_bytes(os.urandom(500_000))
    server.faults.script = [None, Fault.RESET, Fault.WRONG_CRC, None, None, Fault.INTERNAL_ERROR]
    store = store_of(server)
    store.put(url("large"), file, replaces=False)
    assert server.objects.data(BUCKET, "large") == file.read_bytes()
    assert server.objects.find(BUCKET, "large").etag.endswith("-3")
    store.put(url("large"), file, replaces=False)  # the same content is no conflict
    assert server.objects.parts == {}
    store.download(url("large"), file.with_name("copy"), max_bytes=500_000)
    assert file.with_name("copy").read_bytes() == file.read_bytes()


def test_other_content_is_never_replaced_unless_asked(server: OssServer, file: Path):
    store = store_of(server)
    server.objects.put(BUCKET, "taken", b"of others", "")
    with pytest.raises(StoreError) as error:
        store.put(url("taken"), file, replaces=False)
    assert reason_of(error) is Reason.EXISTS
    assert server.objects.data(BUCKET, "taken") == b"of others"
    store.put(url("taken"), file, replaces=True)
    assert server.objects.data(BUCKET, "taken") == file.read_bytes()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.INTERNAL_ERROR, Reason.UNREACHABLE),
        (Fault.SERVICE_BUSY, Reason.UNREACHABLE),
        (Fault.RESET, Reason.UNREACHABLE),
        (Fault.LOST_ANSWER, Reason.UNREACHABLE),
        (Fault.WRONG_CRC, Reason.DAMAGED),
    ],
)
def test_faults_are_told_from_each_other(
    server: OssServer, file: Path, fault: Fault, reason: Reason
):
    store = store_of(server)
    server.objects.put(BUCKET, "there", b"12345678", "")
    for act in (
        lambda: store.put(url("x"), file, replaces=True),
        lambda: store.read(url("there"), max_bytes=100),
    ):
        server.faults.script = [fault]
        with pytest.raises(StoreError) as error:
            act()
        assert reason_of(error) is reason
        assert error.value.is_passing


def test_size_limits_hold_whatever_the_store_announces(server: OssServer):
    store = store_of(server)
    server.objects.put(BUCKET, "large", b"x" * 2000, "")
    for act in (
        lambda: store.read(url("large"), max_bytes=1999),
        lambda: store.download(url("large"), server.objects.root / "copy", max_bytes=10),
    ):
        with pytest.raises(StoreError) as error:
            act()
        assert reason_of(error) is Reason.TOO_LARGE
    assert store.read(url("large"), max_bytes=2000) == b"x" * 2000


@pytest.mark.parametrize(
    ("bucket", "key", "reason"),
    [
        (BUCKET, "none", Reason.MISSING),
        ("nobucket", "none", Reason.NO_BUCKET),
    ],
)
def test_what_is_not_there(server: OssServer, bucket: str, key: str, reason: Reason):
    store, missing = store_of(server), ObjectUrl("oss", bucket, key)
    for act in (lambda: store.read(missing, max_bytes=1), lambda: store.head(missing)):
        with pytest.raises(StoreError) as error:
            act()
        assert reason_of(error) is reason


def test_credentials_of_a_netrc_are_not_ours(
    server: OssServer, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    store_of(server).put(url("x"), file, replaces=True)


def test_proxies_come_from_the_environment(
    server: OssServer, file: Path, monkeypatch: pytest.MonkeyPatch
):
    store = OssStore(
        OssConfig.from_environ(server.environ() | {"OSS_ENDPOINT": "http://oss.example.invalid"})
    )
    monkeypatch.setenv("HTTP_PROXY", server.endpoint)
    with pytest.raises(StoreError) as error:
        store.put(url("x"), file, replaces=True)
    assert reason_of(error) is not Reason.UNREACHABLE
    assert server.log[0][1].startswith(f"http://{BUCKET}.oss.example.invalid/x")


@pytest.mark.parametrize(
    ("environ", "endpoint", "public"),
    [
        (
            {"OSS_ENDPOINT": "oss-cn-hangzhou-internal.aliyuncs.com"},
            "https://oss-cn-hangzhou-internal.aliyuncs.com",
            "https://oss-cn-hangzhou.aliyuncs.com",
        ),
        (
            {"OSS_REGION": "oss-cn-beijing"},
            "https://oss-cn-beijing.aliyuncs.com",
            "https://oss-cn-beijing.aliyuncs.com",
        ),
        (
            {"OSS_ENDPOINT": "http://10.0.0.1:80/", "OSS_PUBLIC_ENDPOINT": "cdn.example.com"},
            "http://10.0.0.1:80",
            "https://cdn.example.com",
        ),
    ],
)
def test_endpoints_for_us_and_for_links(environ: dict[str, str], endpoint: str, public: str):
    keys = {"OSS_ACCESS_KEY_ID": "id", "OSS_ACCESS_KEY_SECRET": "secret"}
    config = OssConfig.from_environ(keys | environ)
    assert (config.endpoint, config.public_endpoint) == (endpoint, public)
    assert "secret" not in repr(config)


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError, match="OSS_ACCESS_KEY_SECRET, OSS_ENDPOINT"):
        OssConfig.from_environ({"OSS_ACCESS_KEY_ID": "id"})
