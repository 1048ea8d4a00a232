"""Where redirects may lead."""

import asyncio

import pytest

from sdapi.errors import BadUrl
from tests.url_server import TRUSTING, Names, answer, fetcher, refusal, serving

pytestmark = pytest.mark.anyio


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
