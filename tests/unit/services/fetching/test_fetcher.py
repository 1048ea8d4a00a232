"""What is fetched, and how a fetch that fails says why."""

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sdapi.services.fetching.fetcher import Fetcher
from sdapi.settings import Settings
from tests.url_server import TRUSTING, Names, answer, fetcher, refusal, serving

pytestmark = pytest.mark.anyio


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


async def test_the_next_address_is_tried_when_one_does_not_answer():
    async with serving(answer(b"x")) as host:
        port = host.partition(":")[2]
        names = Names(two_example=["127.0.0.2", "127.0.0.1"])
        by = fetcher(names, allow_private_urls=True)
        assert await by.get(f"http://two.example:{port}/", max_bytes=9, timeout_s=5) == b"x"


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


async def test_environment_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with serving(answer(b"x")) as host:
        assert await TRUSTING.get(f"http://{host}/", max_bytes=9, timeout_s=5) == b"x"
