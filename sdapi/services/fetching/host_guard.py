"""Which addresses of a host may be asked.

What a client learns: an address that it wrote itself is told as it is. Of a name it learns neither
whether it exists nor where it leads, unless a flag lets the server ask any address of it: no name
shows whether only the server's own network knows it (`db`, `db.internal`, and by a search domain
`redis.default.svc`). The log tells the operator.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import anyio
import anyio.to_thread

from sdapi.services.fetching.addresses import Address, has_credentials, is_public
from sdapi.services.fetching.answers import Refused

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_ADDRESSES: Final = 4
_UNKNOWN: Final = "the host does not resolve"
_NO_PUBLIC: Final = "the host has no public address"
_FLAGS: Final = "only with --allow-url-host or --allow-private-urls does the server ask others"
_EITHER: Final = f"the host does not resolve, or has no public address; {_FLAGS}"


class HostGuard:
    """Resolves hosts once and refuses addresses that not everyone could reach."""

    def __init__(self, *, allow_private: bool, resolve: Resolve | None = None) -> None:
        self._allow_private = allow_private
        self._resolve = resolve or _resolver()

    async def addresses(self, host: str, port: int, allow_hosts: Sequence[str]) -> list[Address]:
        """At most four addresses of a host, all of which may be asked; raises `Refused`.

        Hosts that match a pattern of `allow_hosts` may have private ones.
        """
        anything_goes = self._allow_private or any(
            fnmatchcase(host, pattern.lower()) for pattern in allow_hosts
        )
        keeps_quiet = not anything_goes and not _is_address(host)
        try:
            found = await self._resolve(host, port)
            addresses = [ipaddress.ip_address(text) for text in dict.fromkeys(found)]
        except (OSError, ValueError, OverflowError) as error:  # a bad label is a ValueError
            why = error.strerror if isinstance(error, socket.gaierror) else type(error).__name__
            cause = f"{_UNKNOWN} ({why})"
            raise Refused(_EITHER if keeps_quiet else _UNKNOWN, cause) from error
        if not addresses:
            raise Refused(_EITHER if keeps_quiet else _UNKNOWN, _UNKNOWN)
        if any(has_credentials(address) for address in addresses):
            cause = "it is where credentials of this machine lie"
            raise Refused(_EITHER if keeps_quiet else _NO_PUBLIC, cause)
        if not anything_goes and not all(is_public(address) for address in addresses):
            cause = "it has a private address; see --allow-url-host"
            raise Refused(_EITHER if keeps_quiet else f"{_NO_PUBLIC}; {_FLAGS}", cause)
        return addresses[:MAX_ADDRESSES]


def _is_address(host: str) -> bool:
    """Whether a host is an address in its usual spelling; any other may be a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


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
