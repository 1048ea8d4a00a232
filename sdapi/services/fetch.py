"""Guarded download of URLs that callers name: public addresses only, and bounded in every way.

The host is resolved once and every address checked; the connection then goes to the checked address
itself, so that a name cannot change its mind in between. Redirects are followed by hand and checked
the same way. Messages never say what a private name resolves to, nor whether it exists; the log
tells the operator which host was refused.
"""

import ipaddress
import logging
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Never

import anyio
import anyio.to_thread

from sdapi import __version__
from sdapi.errors import BadUrl
from sdapi.settings import Settings

if TYPE_CHECKING:  # httpx takes a while to import, and most requests name no URL
    import httpx

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_REDIRECTS = 5
MAX_ADDRESSES = 4
CONNECT_TIMEOUT_S = 5.0
REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: bytes decoded at a time, so that a decompression bomb is noticed after this many too much
DECODE_STEP = 1 << 16

#: credentials of the machine live here; no permission covers them
METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "169.254.170.2")
)
#: not public whatever the Python version thinks; carrier-grade NAT, benchmarks, relays, reserved
NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15"),
        *("224.0.0.0/3", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
#: IPv6 addresses given out so far; the rest is local or reserved
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Fetcher:
    """Fetches what a caller's URL names, or raises BadUrl that names the URL and the reason."""

    def __init__(
        self,
        settings: Settings,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = settings.allow_private_urls
        self._allow_hosts = settings.allow_url_hosts
        self._resolve = resolve or _resolver()
        self._tls = tls

    async def get(
        self,
        url: str,
        *,
        max_bytes: int,
        timeout_s: float,
        allow_hosts: Sequence[str] | None = None,
        user_agent: str = "",
    ) -> bytes:
        """The body behind an http(s) URL.

        `timeout_s` covers everything from the name lookup to the last byte, `max_bytes` the body
        after decoding. Hosts that match a pattern of `allow_hosts`, by default those of the
        settings, may have private addresses.
        """
        hosts = self._allow_hosts if allow_hosts is None else allow_hosts
        shown = without_secrets(url)
        try:
            with anyio.fail_after(timeout_s):
                return await self._follow(url, hosts, max_bytes, user_agent)
        except TimeoutError as error:
            raise BadUrl(f"{shown}: no complete answer within {timeout_s:g} s") from error
        except _Refused as error:
            raise BadUrl(f"{shown}: {error}") from error

    async def post(
        self, url: str, body: bytes, headers: dict[str, str], *, timeout_s: float
    ) -> int:
        """Send JSON to an http(s) URL under the same rules; its status. No redirect is followed.

        Raises `BadUrl` when there is no answer.
        """
        shown = without_secrets(url)
        own = {"user-agent": f"sdapi/{__version__}", "content-type": "application/json"}
        try:
            with anyio.fail_after(timeout_s):
                target = _parse(url)
                addresses = await self._checked_addresses(target, self._allow_hosts)
                return await self._send(target, addresses, own | headers, body)
        except TimeoutError as error:
            raise BadUrl(f"{shown}: no answer within {timeout_s:g} s") from error
        except _Refused as error:
            raise BadUrl(f"{shown}: {error}") from error

    async def check(self, url: str) -> None:
        """Raise `BadUrl` for a URL that would not be asked; resolves its host."""
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                await self._checked_addresses(_parse(url), self._allow_hosts)
        except TimeoutError as error:
            raise BadUrl(f"{without_secrets(url)}: the host cannot be resolved") from error
        except _Refused as error:
            raise BadUrl(f"{without_secrets(url)}: {error}") from error

    async def _send(
        self, url: "httpx.URL", addresses: list[Address], headers: dict[str, str], body: bytes
    ) -> int:
        import httpx

        verify = await self._tls_context() if url.scheme == "https" else False
        limits = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
        for last, address in _mark_last(addresses):
            try:
                async with httpx.AsyncClient(
                    verify=verify, trust_env=False, timeout=limits
                ) as client:
                    request = _pinned(client, url, address, headers, "POST", body)
                    response = await client.send(request, stream=True)
                    await response.aclose()  # its body is nobody's business
                    return response.status_code
            except httpx.HTTPError as error:
                if last:
                    raise _Refused(f"cannot be reached ({type(error).__name__})") from error
        raise AssertionError("no address to ask")

    async def _follow(
        self, url: str, allow_hosts: Sequence[str], max_bytes: int, user_agent: str
    ) -> bytes:
        headers = {
            "accept": "*/*",
            "accept-encoding": "identity",
            "user-agent": user_agent or f"sdapi/{__version__}",
        }
        target, via = _parse(url), ""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                addresses = await self._checked_addresses(target, allow_hosts)
                answer = await self._ask(target, addresses, headers, max_bytes)
            except _Refused as error:
                raise _Refused(f"{via}{error}") from error
            if isinstance(answer, bytes):
                return answer
            target = _parse(str(answer))
            via = f"redirected to {without_secrets(str(target))}: "
        raise _Refused(f"more than {MAX_REDIRECTS} redirects")

    async def _checked_addresses(
        self, url: "httpx.URL", allow_hosts: Sequence[str]
    ) -> list[Address]:
        host = url.raw_host.decode("ascii").rstrip(".").lower()
        anything_goes = self._allow_private or any(
            fnmatchcase(host, pattern.lower()) for pattern in allow_hosts
        )
        not_public = "the host does not resolve to a public address"
        unknown = "the host cannot be resolved" if anything_goes else not_public
        try:
            found = await self._resolve(host, _port(url))
            addresses = [ipaddress.ip_address(text) for text in dict.fromkeys(found)]
        except (OSError, ValueError, OverflowError) as error:  # a bad label is a ValueError
            raise _Refused(unknown) from error
        if not addresses:
            raise _Refused(unknown)
        if any(_plain(address) in METADATA_ADDRESSES for address in addresses):
            log.warning("a URL was refused: %s is where credentials of this machine lie", host)
            raise _Refused(not_public)
        if not anything_goes and not all(is_public(address) for address in addresses):
            log.warning("a URL was refused: %s has a private address; see --allow-url-host", host)
            raise _Refused(not_public)
        return addresses[:MAX_ADDRESSES]

    async def _ask(
        self, url: "httpx.URL", addresses: list[Address], headers: dict[str, str], max_bytes: int
    ) -> "bytes | httpx.URL":
        """The body, or where it has moved; the addresses are tried in their order."""
        import httpx

        verify = await self._tls_context() if url.scheme == "https" else False
        for last, address in _mark_last(addresses):
            try:
                async with httpx.AsyncClient(
                    verify=verify,
                    trust_env=False,
                    timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
                ) as client:
                    request = _pinned(client, url, address, headers)
                    response = await client.send(request, stream=True)
                    try:
                        return await _read(url, response, max_bytes)
                    finally:
                        await response.aclose()
            except httpx.ConnectError as error:
                if last or _tls_cause(error):
                    raise _Refused(_connect_problem(error)) from error
            except httpx.ConnectTimeout as error:
                if last:
                    raise _Refused("the host does not accept the connection") from error
            except httpx.HTTPError as error:
                raise _Refused(f"the connection broke ({type(error).__name__})") from error
        raise AssertionError("no address to ask")

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = await anyio.to_thread.run_sync(_make_tls_context)
        return self._tls


class _Refused(Exception):
    """Why a URL was not fetched; the URL is put before it where it is known."""


def is_public(address: Address) -> bool:
    """True for addresses that anyone on the internet could reach.

    An IPv4 address inside an IPv6 one (mapped, NAT64) counts as what it is; other IPv6 forms that
    embed one (6to4, compatible) are refused.
    """
    address = _plain(address)
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    if any(address.version == net.version and address in net for net in NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return ipaddress.IPv6Address(int(address))  # without its zone
    return address


def without_secrets(url: str, limit: int = 200) -> str:
    """A URL fit for messages and logs: not long, without credentials and query (signatures)."""
    head = url.partition("#")[0].partition("?")[0]
    scheme, separator, rest = head.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        head = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    shown = "".join(char if char.isprintable() else "?" for char in head)
    return shown if len(shown) <= limit else shown[:limit] + "…"


def _parse(url: str) -> "httpx.URL":
    import httpx

    try:
        parsed = httpx.URL(url.strip())
        _ = parsed.host, parsed.raw_host, _port(parsed)
    except (httpx.InvalidURL, ValueError) as error:
        raise _Refused("it is not a valid URL") from error
    if parsed.scheme not in ("http", "https"):
        raise _Refused("only http and https URLs are fetched")
    if parsed.userinfo:
        raise _Refused("a URL with user name or password is not fetched")
    if not parsed.host:
        raise _Refused("it names no host")
    return parsed


def _port(url: "httpx.URL") -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _resolver() -> Resolve:
    # Lookups that hang can only be left behind: they must not use up the threads all others share.
    limiter = anyio.CapacityLimiter(16)

    async def resolve(host: str, port: int) -> Sequence[str]:
        found = await anyio.to_thread.run_sync(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            abandon_on_cancel=True,
            limiter=limiter,
        )
        return [str(address[0]) for *_, address in found]

    return resolve


def _make_tls_context() -> ssl.SSLContext:
    """Trust what the machine trusts and, where it has no store of its own, the bundled one."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _pinned(
    client: "httpx.AsyncClient",
    url: "httpx.URL",
    address: Address,
    headers: dict[str, str],
    method: str = "GET",
    content: bytes | None = None,
) -> "httpx.Request":
    """A request that goes to the address, and speaks to (and verifies) the host."""
    return client.build_request(
        method,
        url.copy_with(host=str(address)),
        headers={**headers, "host": url.netloc.decode("ascii")},
        content=content,
        extensions={"sni_hostname": url.raw_host.decode("ascii").rstrip(".")},
    )


def _mark_last(addresses: list[Address]) -> list[tuple[bool, Address]]:
    return [(i == len(addresses) - 1, address) for i, address in enumerate(addresses)]


def _connect_problem(error: Exception) -> str:
    cause = _tls_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "the host's certificate is not valid for it"
    return "the host does not speak TLS" if cause else "the host does not accept the connection"


def _tls_cause(error: Exception) -> ssl.SSLError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


async def _read(
    url: "httpx.URL", response: "httpx.Response", max_bytes: int
) -> "bytes | httpx.URL":
    location = response.headers.get("location")
    if response.status_code in REDIRECTS and location:
        return _joined(url, location)
    if response.status_code != 200:
        raise _Refused(f"the host answered {response.status_code}")
    body = bytearray()
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        _refuse_size(max_bytes)
    async with aclosing(_decoded(response)) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > max_bytes:
                _refuse_size(max_bytes)
    return bytes(body)


def _joined(url: "httpx.URL", location: str) -> "httpx.URL":
    import httpx

    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise _Refused("the host redirects to an invalid URL") from error


def _refuse_size(max_bytes: int) -> Never:
    raise _Refused(f"it is larger than {max_bytes} bytes")


async def _decoded(response: "httpx.Response") -> AsyncGenerator[bytes, None]:
    """The body in small steps; of encodings, which nobody asked for, only the bounded ones."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        async for chunk in response.aiter_raw():
            yield chunk
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise _Refused(f"the host sent it as {encoding[:40]!r}, which was not asked for")
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, by its header
    try:
        async for chunk in response.aiter_raw():
            while chunk and not decoder.eof:
                yield decoder.decompress(chunk, DECODE_STEP)
                chunk = decoder.unconsumed_tail
        yield decoder.flush(DECODE_STEP)
    except zlib.error as error:
        raise _Refused("its compressed data is damaged") from error
    if not decoder.eof:
        raise _Refused("its compressed data ends too early")
