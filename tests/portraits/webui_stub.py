"""A web UI elsewhere, for portraits that are drawn by HTTP: gives pictures back, fails as told."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class WebuiStub:
    """What it was asked, and how it is to fail: by the number of the pass, from 1."""

    url: str = ""
    passes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    credentials: list[str | None] = field(default_factory=list[str | None])
    #: pass -> status and body, or seconds to hang
    failures: dict[int, tuple[int, bytes] | float] = field(default_factory=dict[int, Any])
    #: GET path -> answer
    listings: dict[str, Any] = field(default_factory=dict[str, Any])

    #: base64 of what is drawn from text
    invention: str = ""

    def reset(self) -> None:
        self.passes.clear()
        self.failures.clear()
        self.listings.clear()


@contextmanager
def webui_stub() -> Iterator[WebuiStub]:
    """The server while the context lasts."""
    stub = WebuiStub()
    stopping = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listing = stub.listings.get(self.path)
            self._answer(404 if listing is None else 200, json.dumps(listing).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stub.passes.append(body)
            stub.credentials.append(self.headers.get("Authorization"))
            failure = stub.failures.get(len(stub.passes))
            if isinstance(failure, float):
                stopping.wait(failure)
                failure = 500, b"{}"
            if failure is not None:
                self._answer(*failure)
                return
            images = body.get("init_images") or [stub.invention]
            self._answer(200, json.dumps({"images": images, "info": "{}"}).encode())

        def _answer(self, status: int, body: bytes) -> None:
            with suppress(OSError):  # who hangs up is not waited for
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        stub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield stub
        finally:
            stopping.set()
            server.shutdown()
            thread.join()
