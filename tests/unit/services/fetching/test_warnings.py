"""What the log tells of fetches that fail."""

import asyncio

import pytest

from sdapi.errors import BadUrl
from sdapi.services.fetching.fetcher import without_secrets
from tests.url_server import Names, answer, fetcher, refusal, serving

pytestmark = pytest.mark.anyio


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
