"""A web server of test photos on loopback, for what fetches URLs."""

import http.server
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from tests.portraits.people import NAMES, photo


@dataclass
class PhotoServer:
    """Serves rendered people, and things that are no photos, under `/<name>`."""

    url: str
    files: dict[str, bytes]
    #: paths that were asked for, in order
    asked: list[str] = field(default_factory=list[str])

    def of(self, *names: str) -> list[str]:
        """The URLs of some photos."""
        return [f"{self.url}/{name}" for name in names]


@contextmanager
def photo_server() -> Iterator[PhotoServer]:
    """The server while the context lasts."""
    photos = PhotoServer("", {name: photo(name) for name in NAMES} | _no_photos())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").partition("?")[0]
            photos.asked.append(name)
            data = photos.files.get(name)
            self.send_response(200 if data is not None else 404)
            self.end_headers()
            self.wfile.write(data or b"<html>not here</html>")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        photos.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield photos
        finally:
            server.shutdown()
            thread.join()


def _no_photos() -> dict[str, bytes]:
    return {
        "html": b"<html><body>a page</body></html>",
        "broken": photo("person_0")[:4000],
        "empty": b"",
        "huge": _png(Image.new("1", (8001, 8000))),
        "bomb": _bomb(),
        "animated": _animated(),
    }


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _bomb() -> bytes:
    """A PNG whose header promises 2.5 thousand million pixels."""
    import struct
    import zlib

    small = _png(Image.new("L", (1, 1)))
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return small[:8] + chunk + small[8 + 25 :]


def _animated() -> bytes:
    """One person first, then nobody, many times."""
    data = io.BytesIO()
    first, then = (Image.open(io.BytesIO(photo(name))) for name in ("person_0", "nobody"))
    first.save(data, "GIF", save_all=True, append_images=[then] * 20)
    return data.getvalue()
