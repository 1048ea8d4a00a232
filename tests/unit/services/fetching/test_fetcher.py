import asyncio
import datetime
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sdapi.errors import BadUrl
from sdapi.services.fetching.fetcher import Fetcher, without_secrets
from sdapi.settings import Settings

pytestmark = pytest.mark.anyio

Reply = Callable[[bytes, asyncio.StreamWriter], Coroutine[object, object, None]]


class Names:
    """A resolver that knows what it is told and remembers what it was asked."""

    def __init__(self, **known: Sequence[str]) -> None:
        self.known = {name.replace("_", "."): list(found) for name, found in known.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError("unknown name")
        return self.known[host]


@asynccontextmanager
async def serving(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The host:port of a loopback server that reads a request's head and lets `reply` answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reply(await reader.readuntil(b"\r\n\r\n"), writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has seen enough
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def answer(body: bytes, status: str = "200 OK", **headers: str) -> Reply:
    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        fields = {"content_length": str(len(body)), **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body)

    return reply


def fetcher(names: Names | None = None, **overrides: object) -> Fetcher:
    return Fetcher(Settings(data_dir=Path("/data"), **overrides), names)  # type: ignore[arg-type]


TRUSTING = fetcher(allow_private_urls=True)


async def refusal(
    url: str, by: Fetcher = TRUSTING, max_bytes: int = 1000, timeout_s: float = 5.0
) -> str:
    with pytest.raises(BadUrl) as caught:
        await by.get(url, max_bytes=max_bytes, timeout_s=timeout_s)
    return caught.value.detail


async def test_a_body_is_fetched():
    async with serving(answer(b"picture")) as host:
        body = await TRUSTING.get(f"http://{host}/a?b=c", max_bytes=7, timeout_s=5)
    assert body == b"picture"


async def test_the_request_is_for_the_named_host_and_asks_for_no_compression():
    heads: list[bytes] = []

    async def reply(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head.lower())
        await answer(b"x")(head, writer)

    names = Names(pictures_example=["127.0.0.1"])
    async with serving(reply) as host:
        port = host.partition(":")[2]
        await fetcher(names, allow_url_hosts=("*.example",)).get(
            f"http://Pictures.example:{port}/a%20b?sig=%2F",
            max_bytes=10,
            timeout_s=5,
            user_agent="Agent/1",
        )
    assert f"host: pictures.example:{port}".encode() in heads[0]
    assert heads[0].startswith(b"get /a%20b?sig=%2f http/1.1")
    assert b"accept-encoding: identity" in heads[0]
    assert b"user-agent: agent/1" in heads[0]
    assert names.asked == ["pictures.example"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433"])
async def test_loopback_is_refused_however_it_is_spelled(host: str):
    started = time.monotonic()
    text = await refusal(f"http://{host}:9/x?secret=1", fetcher())
    assert time.monotonic() - started < 2
    assert "no public address" in text
    assert "--allow-url-host" in text
    assert "secret" not in text


@pytest.mark.parametrize("zone", ["", ".internal", ".default.svc", ".prod", ".example.com"])
async def test_private_and_unknown_names_are_told_apart_by_nobody(zone: str):
    private, mixed = ["10.1.2.3"], ["93.184.216.34", "10.1.2.3"]
    own = {f"inside{zone}": private, f"mixed{zone}": mixed, f"empty{zone}": []}
    names = Names(**own, **{f"meta{zone}": ["169.254.169.254"]})
    texts = {
        (await refusal(f"http://{host}{zone}/", fetcher(names))).partition(": ")[2]
        for host in ("inside", "mixed", "empty", "meta", "nowhere", "a" * 64)
    }
    assert len(texts) == 1
    assert texts.pop().startswith("the host does not resolve, or has no public address; ")


async def test_an_allowed_name_that_does_not_resolve_is_told_so():
    by = fetcher(Names(), allow_url_hosts=("*.example",))
    text = await refusal("http://nowhere.example/", by)
    assert text.partition(": ")[2] == "the host does not resolve"


@pytest.mark.parametrize("host", ["10.1.2.3", "[fd00::1]"])
async def test_a_private_address_that_the_caller_wrote_is_told_so(host: str):
    text = await refusal(f"http://{host}/", fetcher())
    assert text.partition("/: ")[2].startswith("the host has no public address; only with --allow")


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "100.100.100.200", "::ffff:169.254.169.254"]
)
async def test_the_metadata_service_is_refused_even_where_private_is_allowed(address: str):
    trusting = fetcher(Names(meta_example=[address]), allow_private_urls=True)
    assert "public address" in await refusal("http://meta.example/", trusting)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("inside.example", "it has a private address; see --allow-url-host"),
        ("metadata.example", "it is where credentials of this machine lie"),
        ("unknown.example", "the host does not resolve (OSError)"),
        ("unknown", "the host does not resolve (OSError)"),
    ],
)
async def test_a_refused_host_is_one_warning_without_path_and_query(
    caplog: pytest.LogCaptureFixture, host: str, reason: str
):
    names = Names(inside_example=["10.0.0.7"], metadata_example=["169.254.169.254"])
    await refusal(f"http://{host}/p.jpg?Signature=secret", fetcher(names))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    told = caplog.records[0].getMessage()
    assert told == f"a URL of host '{host}' was not fetched: {reason}"


async def test_every_fetch_that_fails_is_one_warning(caplog: pytest.LogCaptureFixture):
    async def slow(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async def redirect(head: bytes, writer: asyncio.StreamWriter) -> None:
        await answer(b"", "302 Found", location="http://127.0.0.1:1/in?k=secret")(head, writer)

    reasons = {
        "the host answered 404": answer(b"", "404 Not Found"),
        "it is larger than 9 bytes": answer(b"x" * 10),
        "no complete answer within 0.3 s": slow,
        "the host does not accept the connection": redirect,
    }
    for reason, reply in reasons.items():
        caplog.clear()
        async with serving(reply) as host:
            await refusal(f"http://{host}/p.jpg?Signature=secret", max_bytes=9, timeout_s=0.3)
        host = "127.0.0.1:1" if reply is redirect else host
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        told = caplog.records[0].getMessage()
        assert told == f"a URL of host '{host}' was not fetched: {reason}"


async def test_credentials_in_a_url_are_not_logged(caplog: pytest.LogCaptureFixture):
    await refusal("http://user:password@pictures.example/x")
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "a URL of host 'pictures.example' was not fetched: "
        "a URL with user name or password is not fetched"
    ]


async def test_an_allowed_host_pattern_covers_its_names_only():
    names = Names(**{"b_oss-internal_aliyuncs_com": ["127.0.0.1"], "other_com": ["127.0.0.1"]})
    async with serving(answer(b"x")) as host:
        port = host.partition(":")[2]
        url = f"http://b.oss-internal.aliyuncs.com:{port}/"
        assert await fetcher(names).get(url, max_bytes=9, timeout_s=5) == b"x"
        assert "public" in await refusal(f"http://other.com:{port}/", fetcher(names))
        with pytest.raises(BadUrl):
            await fetcher(names).get(url, max_bytes=9, timeout_s=5, allow_hosts=())


async def test_the_next_address_is_tried_when_one_does_not_answer():
    async with serving(answer(b"x")) as host:
        port = host.partition(":")[2]
        names = Names(two_example=["127.0.0.2", "127.0.0.1"])
        by = fetcher(names, allow_private_urls=True)
        assert await by.get(f"http://two.example:{port}/", max_bytes=9, timeout_s=5) == b"x"


async def test_redirects_are_followed():
    async def reply(head: bytes, writer: asyncio.StreamWriter) -> None:
        moved = answer(b"", "302 Found", location="/there?x=1")
        await (moved if b"GET /here" in head else answer(b"arrived"))(head, writer)

    async with serving(reply) as host:
        assert await TRUSTING.get(f"http://{host}/here", max_bytes=9, timeout_s=5) == b"arrived"


async def test_a_redirect_into_loopback_is_refused():
    names = Names(**{"pictures_example": ["127.0.0.1"], "127_0_0_1": ["127.0.0.1"]})
    by = fetcher(names, allow_url_hosts=("pictures.example",))
    async with serving(answer(b"", "302 Found", location="http://127.0.0.1:1/in?k=v")) as host:
        port = host.partition(":")[2]
        text = await refusal(f"http://pictures.example:{port}/x", by)
    assert text == (
        f"http://pictures.example:{port}/x: redirected to http://127.0.0.1:1/in: "
        "the host has no public address; "
        "only with --allow-url-host or --allow-private-urls does the server ask others"
    )


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://a.example/", "http://u:p@h/"])
async def test_a_redirect_to_something_else_is_refused(target: str):
    async with serving(answer(b"", "301 Moved", location=target)) as host:
        text = await refusal(f"http://{host}/x")
    assert "fetched" in text
    assert "u:p" not in text


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("", "the host answered 302"),
        ("//", "more than 5 redirects"),
        ("http://", "more than 5 redirects"),
        ("http:///x", "the host answered 404"),
        ("http://[", "does not resolve"),
        ("http://a b/", "does not resolve"),
        ("http://a\tb/", "redirects to an invalid URL"),
        ("http://bücher.invalid/", "does not resolve"),
        ("http://\u202e\u2603/", "redirects to an invalid URL"),
        ("http://xn--/", "not a valid URL"),
        ("http://127.0.0.1:port/", "redirects to an invalid URL"),
        ("http://127.0.0.1:70000/x", "its port is outside 1 to 65535"),
        ("http://127.0.0.1:0/x", "its port is outside 1 to 65535"),
        (f"http://127.0.0.1:{'9' * 5000}/", "redirects to an invalid URL"),
        (f"http://127.0.0.1/{'x' * 66_000}", "redirects to an invalid URL"),
        (f"http://{'a' * 300}.invalid/", "does not resolve"),
        ("data:,x", "only http and https"),
        ("data:image/png;base64,AAAA", "only http and https"),
        ("mailto:a@b", "only http and https"),
        ("javascript:x", "only http and https"),
        ("http:x", "the host answered 404"),
        (":", "more than 5 redirects"),
    ],
)
async def test_a_redirect_to_what_is_no_url_of_a_picture_is_refused(location: str, reason: str):
    async def reply(head: bytes, writer: asyncio.StreamWriter) -> None:
        is_first = head.startswith(b"GET /first ")
        status, headers = ("302 Found", f"location: {location}\r\n") if is_first else ("404 No", "")
        writer.write(f"HTTP/1.1 {status}\r\n{headers}content-length: 0\r\n\r\n".encode())

    async with serving(reply) as host:
        text = await refusal(f"http://{host}/first")
    assert text.startswith(f"http://{host}/first: ")
    assert reason in text
    assert len(text) < 400


@pytest.mark.parametrize(
    "location", ["data:,x", "mailto:a@b", "http://[", "http://127.0.0.1:70000/"]
)
async def test_where_a_webhook_redirects_to_is_not_looked_at(location: str):
    async with serving(answer(b"", "302 Found", location=location)) as host:
        assert await TRUSTING.post(f"http://{host}/", b"{}", {}, timeout_s=5) == 302


async def test_a_webhook_of_an_impossible_port_is_refused():
    with pytest.raises(BadUrl, match="its port is outside 1 to 65535"):
        await TRUSTING.check("https://127.0.0.1:70000/hook")
    with pytest.raises(BadUrl, match="its port is outside 1 to 65535"):
        await TRUSTING.post("https://127.0.0.1:70000/hook", b"{}", {}, timeout_s=5)


async def test_redirects_end_after_five():
    asked = 0

    async def reply(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await answer(b"", "307 Again", location=f"/{asked}")(head, writer)

    async with serving(reply) as host:
        assert "more than 5 redirects" in await refusal(f"http://{host}/x")
    assert asked == 6


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("oss://bucket/key", "only http and https"),
        ("//host/x", "only http and https"),
        ("http:///x", "names no host"),
        ("http://user:pass@host/x", "user name or password"),
        ("http://[::1/x", "not a valid URL"),
        ("http://host:port/x", "not a valid URL"),
        ("http://8.8.8.8:99999/a.jpg", "its port is outside 1 to 65535"),
        ("https://8.8.8.8:65536/a.jpg", "its port is outside 1 to 65535"),
        ("http://8.8.8.8:0/", "its port is outside 1 to 65535"),
        ("http://8.8.8.8:-1/", "not a valid URL"),
        (f"http://8.8.8.8:{'9' * 5000}/", "not a valid URL"),
        (f"http://8.8.8.8/{'x' * 70_000}", "not a valid URL"),
        ("http://a..b/", "resolve"),
        (f"http://{'a' * 70}.example/", "resolve"),
    ],
)
async def test_urls_that_cannot_be_fetched_say_why(url: str, reason: str):
    text = await refusal(url, fetcher())
    assert reason in text
    assert "pass@" not in text


async def test_a_status_that_is_not_200_is_named():
    async with serving(answer(b"gone", "404 Not Found")) as host:
        text = await refusal(f"http://{host}/x?signature=abc")
    assert text == f"http://{host}/x: the host answered 404"


async def test_a_closed_port_is_a_clear_error():
    async with serving(answer(b"")) as host:
        pass
    assert "does not accept the connection" in await refusal(f"http://{host}/")


async def test_plain_http_behind_an_https_url_is_a_clear_error():
    def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert "does not speak TLS" in await refusal(f"https://127.0.0.1:{port}/")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for pictures.example, its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pictures.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.example")]), False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    key_text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key_text)
    return path


async def test_https_verifies_the_named_host_not_the_address(certificate: Path):
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate)
    names = Names(pictures_example=["127.0.0.1"], other_example=["127.0.0.1"])
    settings = Settings(data_dir=Path("/data"), allow_private_urls=True)
    by = Fetcher(settings, names, tls=ssl.create_default_context(cafile=certificate))
    async with serving(answer(b"x"), tls=served) as host:
        port = host.partition(":")[2]
        url = f"https://pictures.example:{port}/"
        assert await by.get(url, max_bytes=9, timeout_s=5) == b"x"
        assert "certificate" in await refusal(f"https://other.example:{port}/", by)
        assert "certificate" in await refusal(url, Fetcher(settings, names))


async def test_a_slow_body_ends_at_the_time_limit():
    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(reply) as host:
        started = time.monotonic()
        text = await refusal(f"http://{host}/", timeout_s=0.3)
    assert time.monotonic() - started < 2
    assert text.endswith("no complete answer within 0.3 s")


async def test_a_slow_name_lookup_ends_at_the_time_limit():
    async def resolve(host: str, port: int) -> Sequence[str]:
        await anyio.sleep(60)
        return []

    by = Fetcher(Settings(data_dir=Path("/data")), resolve)
    assert "within 0.1 s" in await refusal("http://slow.example/", by, timeout_s=0.1)


async def test_an_announced_gigabyte_is_not_read():
    async with serving(answer(b"", content_length=str(1 << 30))) as host:
        assert "larger than 1000 bytes" in await refusal(f"http://{host}/")


@pytest.mark.parametrize("headers", ["", "transfer-encoding: chunked\r\n"])
async def test_a_gigabyte_that_nobody_announced_stops_at_the_limit(headers: str):
    sent = 0

    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode())
        block = bytes(1 << 16)
        framed = b"10000\r\n" + block + b"\r\n" if headers else block
        for _ in range(1 << 14):
            writer.write(framed)
            await writer.drain()
            sent += len(block)

    async with serving(reply) as host:
        assert "larger than" in await refusal(f"http://{host}/", max_bytes=1 << 20)
    assert sent < 64 << 20


async def test_a_content_length_that_lies_is_noticed():
    async with serving(answer(b"short", content_length="500")) as host:
        assert "the connection broke" in await refusal(f"http://{host}/")
    async with serving(answer(b"0123456789", content_length="4")) as host:
        body = await TRUSTING.get(f"http://{host}/", max_bytes=4, timeout_s=5)
    assert body == b"0123"


async def test_gzip_that_nobody_asked_for_is_unpacked():
    async with serving(answer(gzip.compress(b"x" * 900), content_encoding="gzip")) as host:
        assert await TRUSTING.get(f"http://{host}/", max_bytes=1000, timeout_s=5) == b"x" * 900


async def test_a_decompression_bomb_stops_at_the_limit():
    bomb = gzip.compress(bytes(200 << 20), compresslevel=1)
    async with serving(answer(bomb, content_encoding="gzip")) as host:
        started = time.monotonic()
        text = await refusal(f"http://{host}/", max_bytes=1 << 20)
    assert "larger than 1048576 bytes" in text
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_other_encodings_are_refused(encoding: str):
    async with serving(answer(b"x", content_encoding=encoding)) as host:
        assert "not asked for" in await refusal(f"http://{host}/")


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"x" * 500)[:-9]])
async def test_damaged_compression_is_refused(body: bytes):
    async with serving(answer(body, content_encoding="gzip")) as host:
        assert "compressed data" in await refusal(f"http://{host}/")


async def test_environment_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with serving(answer(b"x")) as host:
        assert await TRUSTING.get(f"http://{host}/", max_bytes=9, timeout_s=5) == b"x"


async def test_shown_urls_keep_no_secret_and_stay_short():
    assert without_secrets("https://u:p@h:1/a/b?sig=1#f") == "https://h:1/a/b"
    assert without_secrets("http://h/\n\x1b") == "http://h/??"
    assert len(without_secrets("http://h/" + "x" * 9999)) <= 201


async def test_a_webhook_that_is_not_delivered_is_one_warning_with_its_cause(
    caplog: pytest.LogCaptureFixture,
):
    by = fetcher(Names(inside_example=["10.0.0.7"]))
    with pytest.raises(BadUrl, match="does not resolve, or has no public address"):
        await by.post("http://inside.example/hook?key=secret", b"{}", {}, timeout_s=5)
    assert [record.getMessage() for record in caplog.records] == [
        "a URL of host 'inside.example' took no webhook: "
        "it has a private address; see --allow-url-host"
    ]
