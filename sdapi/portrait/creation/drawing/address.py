"""Where portraits are drawn: on this server, unless `URL` names another. Contract 1.7."""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sdapi.settings import SettingsError

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Another server of the webui API."""

    url: str
    authorization: str = field(default="", repr=False)


def elsewhere(
    url: str | None, authorization: str | None, own_ports: Collection[int]
) -> Address | None:
    """The address, unless it is none, or a port of this machine that stands for this server.

    Raises SettingsError for what is no http address.
    """
    if not url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise SettingsError(f"the portrait's URL {url[:80]!r} cannot be read: {error}") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise SettingsError(
            f"the portrait's URL begins with http:// or https:// and names a host, not {url[:60]!r}"
        )
    if _is_loopback(parts.hostname) and port in own_ports:
        return None
    return Address(url, authorization or "")


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return address.is_loopback or address.is_unspecified
