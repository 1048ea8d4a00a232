"""Guarded download of URLs that callers name: public addresses only, and bounded in every way.

The host is resolved once and every address checked; the connection then goes to the checked address
itself, so that a name cannot change its mind in between. Redirects are followed by hand and checked
the same way. Every fetch that fails is one line of the log, with the host and the reason.
"""

import logging
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from sdapi import __version__
from sdapi.errors import BadUrl
from sdapi.services.fetching.addresses import Address
from sdapi.services.fetching.answers import Refused, read_answer
from sdapi.services.fetching.host_guard import HostGuard, Resolve
from sdapi.settings import Settings

if TYPE_CHECKING:  # httpx takes a while to import, and most requests name no URL
    import httpx

log = logging.getLogger(__name__)

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 5.0
_MAX_PORT = 65535
_NOT_FETCHED = "a URL of host %r was not fetched: %s"
_NOT_SENT = "a URL of host %r took no webhook: %s"


class Fetcher:
    """Fetches what a caller's URL names, or raises BadUrl that names the URL and the reason."""

    def __init__(
        self,
        settings: Settings,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_hosts = settings.allow_url_hosts
        self._guard = HostGuard(allow_private=settings.allow_private_urls, resolve=resolve)
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
            reason = f"no complete answer within {timeout_s:g} s"
            _log_failure(url, reason)
            raise BadUrl(f"{shown}: {reason}") from error
        except Refused as error:
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
                addresses = await self._addresses(target, self._allow_hosts)
                return await self._send(target, addresses, own | headers, body)
        except TimeoutError as error:
            reason = f"no answer within {timeout_s:g} s"
            _log_failure(url, reason, _NOT_SENT)
            raise BadUrl(f"{shown}: {reason}") from error
        except Refused as error:
            _log_failure(url, error.cause, _NOT_SENT)
            raise BadUrl(f"{shown}: {error}") from error

    async def check(self, url: str) -> None:
        """Raise `BadUrl` for a URL that would not be asked; resolves its host."""
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                await self._addresses(_parse(url), self._allow_hosts)
        except TimeoutError as error:
            reason = "the host does not resolve in time"
            _log_failure(url, reason)
            raise BadUrl(f"{without_secrets(url)}: {reason}") from error
        except Refused as error:
            _log_failure(url, error.cause)
            raise BadUrl(f"{without_secrets(url)}: {error}") from error

    async def _send(
        self, url: "httpx.URL", addresses: list[Address], headers: dict[str, str], body: bytes
    ) -> int:
        import httpx

        verify = await self._tls_context() if url.scheme == "https" else False
        for last, address in _mark_last(addresses):
            try:
                async with httpx.AsyncHTTPTransport(verify=verify, trust_env=False) as transport:
                    request = _pinned(url, address, headers, "POST", body)
                    response = await transport.handle_async_request(request)
                    await response.aclose()  # its body is nobody's business
                    return response.status_code
            except httpx.HTTPError as error:
                if last:
                    raise Refused(f"cannot be reached ({type(error).__name__})") from error
        raise AssertionError("no address to ask")

    async def _follow(
        self, url: str, allow_hosts: Sequence[str], max_bytes: int, user_agent: str
    ) -> bytes:
        headers = {
            "accept": "*/*",
            "accept-encoding": "identity",
            "user-agent": user_agent or f"sdapi/{__version__}",
        }
        via = ""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                target = _parse(url)
                addresses = await self._addresses(target, allow_hosts)
                answer = await self._ask(target, addresses, headers, max_bytes)
            except Refused as error:
                _log_failure(url, error.cause)
                raise Refused(f"{via}{error}") from error
            if isinstance(answer, bytes):
                return answer
            url = str(answer)
            via = f"redirected to {without_secrets(url)}: "
        reason = f"more than {MAX_REDIRECTS} redirects"
        _log_failure(url, reason)
        raise Refused(reason)

    async def _addresses(self, url: "httpx.URL", allow_hosts: Sequence[str]) -> list[Address]:
        host = url.raw_host.decode("ascii").rstrip(".").lower()
        return await self._guard.addresses(host, _port(url), allow_hosts)

    async def _ask(
        self, url: "httpx.URL", addresses: list[Address], headers: dict[str, str], max_bytes: int
    ) -> "bytes | httpx.URL":
        """The body, or where it has moved; the addresses are tried in their order."""
        import httpx

        verify = await self._tls_context() if url.scheme == "https" else False
        for last, address in _mark_last(addresses):
            try:
                # A client would read where a redirect leads, and raise what it makes of that.
                async with httpx.AsyncHTTPTransport(verify=verify, trust_env=False) as transport:
                    request = _pinned(url, address, headers)
                    response = await transport.handle_async_request(request)
                    try:
                        return await read_answer(url, response, max_bytes)
                    finally:
                        await response.aclose()
            except httpx.ConnectError as error:
                if last or _tls_cause(error):
                    raise Refused(_connect_problem(error)) from error
            except httpx.ConnectTimeout as error:
                if last:
                    raise Refused("the host does not accept the connection") from error
            except httpx.HTTPError as error:
                raise Refused(f"the connection broke ({type(error).__name__})") from error
        raise AssertionError("no address to ask")

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = await anyio.to_thread.run_sync(_make_tls_context)
        return self._tls


def without_secrets(url: str, limit: int = 200) -> str:
    """A URL fit for messages and logs: not long, without credentials and query (signatures)."""
    head = url.partition("#")[0].partition("?")[0]
    scheme, separator, rest = head.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        head = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    shown = "".join(char if char.isprintable() else "?" for char in head)
    return shown if len(shown) <= limit else shown[:limit] + "…"


def _log_failure(url: str, reason: str, message: str = _NOT_FETCHED) -> None:
    """One line without path and query, either of which may be the key to a picture."""
    host = without_secrets(url).partition("://")[2].partition("/")[0]
    log.warning(message, host, reason)


def _parse(url: str) -> "httpx.URL":
    import httpx

    try:
        parsed = httpx.URL(url.strip())
        _ = parsed.host, parsed.raw_host
    except (httpx.InvalidURL, ValueError) as error:
        raise Refused("it is not a valid URL") from error
    if parsed.scheme not in ("http", "https"):
        raise Refused("only http and https URLs are fetched")
    if parsed.userinfo:
        raise Refused("a URL with user name or password is not fetched")
    if not parsed.host:
        raise Refused("it names no host")
    if not 1 <= _port(parsed) <= _MAX_PORT:
        raise Refused(f"it is not a valid URL: its port is outside 1 to {_MAX_PORT}")
    return parsed


def _port(url: "httpx.URL") -> int:
    usual = 443 if url.scheme == "https" else 80
    return usual if url.port is None else url.port


def _make_tls_context() -> ssl.SSLContext:
    """Trust what the machine trusts and, where it has no store of its own, the bundled one."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _pinned(
    url: "httpx.URL",
    address: Address,
    headers: dict[str, str],
    method: str = "GET",
    content: bytes | None = None,
) -> "httpx.Request":
    """A request that goes to the address, and speaks to (and verifies) the host."""
    import httpx

    return httpx.Request(
        method,
        url.copy_with(host=str(address)),
        headers={**headers, "host": url.netloc.decode("ascii")},
        content=content,
        extensions={
            "sni_hostname": url.raw_host.decode("ascii").rstrip("."),
            "timeout": httpx.Timeout(None, connect=CONNECT_TIMEOUT_S).as_dict(),
        },
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
