"""CRC-64/XZ, which OSS tells of every object (ECMA-182, reflected)."""

_POLYNOMIAL = 0xC96C5795D7870F42
_MASK = (1 << 64) - 1


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_entry(byte) for byte in range(256))


def crc64(data: bytes) -> int:
    """The checksum of some bytes; of b"123456789" it is 0x995DC9BBDF1939FA."""
    value, table = _MASK, _TABLE
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 255]
    return value ^ _MASK
