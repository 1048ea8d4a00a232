"""What has been written to a client and has not arrived there."""

import asyncio
import fcntl
import struct
import termios

#: Linux's SIOCOUTQNSD: bytes of a socket that are not sent; termios has that of those not confirmed
_NOT_SENT = 0x894B


class Outgoing:
    """The queue's `Connection`; where the system tells nothing, only our own memory counts."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def waiting_bytes(self) -> int:
        return self._transport.get_write_buffer_size() + self._in_system(_NOT_SENT)

    def unconfirmed_bytes(self) -> int:
        return self._transport.get_write_buffer_size() + self._in_system(termios.TIOCOUTQ)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()

    def _in_system(self, request: int) -> int:
        if self._transport.is_closing():  # its descriptor may be another's by now
            return 0
        socket = self._transport.get_extra_info("socket")
        try:
            return struct.unpack("i", fcntl.ioctl(socket.fileno(), request, bytes(4)))[0]
        except OSError:  # other systems have no such call
            return 0
