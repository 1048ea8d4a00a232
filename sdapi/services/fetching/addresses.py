"""Which addresses anyone could reach, and which nobody may."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

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


def is_public(address: Address) -> bool:
    """True for addresses that anyone on the internet could reach.

    An IPv4 address inside an IPv6 one (mapped, NAT64) counts as what it is; other IPv6 forms that
    embed one (6to4, compatible) are refused.
    """
    address = plain_address(address)
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    if any(address.version == net.version and address in net for net in NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def plain_address(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it stands for one; else as it is."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return ipaddress.IPv6Address(int(address))  # without its zone
    return address


def has_credentials(address: Address) -> bool:
    """Whether the credentials of a machine lie there."""
    return plain_address(address) in METADATA_ADDRESSES
