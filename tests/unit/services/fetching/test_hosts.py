"""Which hosts may be asked, and what a refusal tells."""

import time

import pytest

from sdapi.errors import BadUrl
from tests.url_server import Names, answer, fetcher, refusal, serving

pytestmark = pytest.mark.anyio


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


async def test_an_allowed_host_pattern_covers_its_names_only():
    names = Names(**{"b_oss-internal_aliyuncs_com": ["127.0.0.1"], "other_com": ["127.0.0.1"]})
    async with serving(answer(b"x")) as host:
        port = host.partition(":")[2]
        url = f"http://b.oss-internal.aliyuncs.com:{port}/"
        assert await fetcher(names).get(url, max_bytes=9, timeout_s=5) == b"x"
        assert "public" in await refusal(f"http://other.com:{port}/", fetcher(names))
        with pytest.raises(BadUrl):
            await fetcher(names).get(url, max_bytes=9, timeout_s=5, allow_hosts=())
