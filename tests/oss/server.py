"""The service's HTTP face, path style (`/bucket/key`), on a free port of loopback."""

import base64
import datetime
import hashlib
import re
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.oss.crc64 import crc64
from tests.oss.faults import Fault, Faults
from tests.oss.objects import Objects, Stored
from tests.oss.signatures import Key, Rejected, Request, identify

KEY = Key("LTAI5tExampleKeyId", "ExampleSecret0123456789abcdef")
REGION = "cn-hangzhou"


class OssServer:
    """The service. `now` is its clock; `stop` and `start` let it be away.

    `checksum` makes the CRC64; the own one is plain Python, a second for each megabyte.
    """

    def __init__(
        self,
        root: Path,
        *,
        keys: tuple[Key, ...] = (KEY,),
        buckets: tuple[str, ...] = ("examplebucket",),
        region: str = REGION,
        checksum: Callable[[bytes], int] = crc64,
    ) -> None:
        self.objects = Objects(root, buckets, checksum)
        self.keys = {key.id: key for key in keys}
        self.region = region
        self.faults = Faults()
        self.clock_offset = datetime.timedelta()
        #: method, key with query, status (0 for a reset connection)
        self.log: list[tuple[str, str, int]] = []
        self.connections = 0
        self._port = 0
        self._server: _Server | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + self.clock_offset

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"oss": self})
        server = _Server(("127.0.0.1", self._port), handler)
        self._server, self._port = server, server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.hang_up()

    def environ(self, key: Key = KEY, *, region: str | None = None) -> dict[str, str]:
        """The variables that a client of this service is started with."""
        found = {
            "OSS_ACCESS_KEY_ID": key.id,
            "OSS_ACCESS_KEY_SECRET": key.secret,
            "OSS_ENDPOINT": self.endpoint,
        }
        if key.token:
            found["OSS_SESSION_TOKEN"] = key.token
        if region:
            found["OSS_REGION"] = region
        return found


@contextmanager
def oss_server(root: Path, **options: Any) -> Iterator[OssServer]:
    """A server of the protocol, for as long as the block takes."""
    server = OssServer(root, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Break the connections that clients keep."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients may die
            super().handle_error(request, client_address)


class _Reset(Exception):
    """Break the connection instead of answering."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    oss: OssServer

    def setup(self) -> None:
        super().setup()
        self.oss.connections += 1

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(timestamp or self.oss.now.timestamp())

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    # --- one request -------------------------------------------------------------------------

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path, _, raw_query = self.path.partition("?")
        bucket, _, key = unquote(path.lstrip("/")).partition("/")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, bucket, key, raw_query, headers)
        self._fault = self.oss.faults.next()
        try:
            self._before_faults()
            self._check(request)
            self._operation(request)(request, body)
        except Rejected as error:
            self._answer_error(error, request)
        except _Reset:
            self._note(0)
            self._reset()

    def _before_faults(self) -> None:
        if self._fault is Fault.RESET:
            raise _Reset
        if self._fault is Fault.INTERNAL_ERROR:
            raise Rejected(500, "InternalError", "We encountered an internal error.")
        if self._fault is Fault.SERVICE_BUSY:
            raise Rejected(503, "ServiceUnavailable", "Please reduce your request rate.")
        if self._fault is Fault.SLOW:
            time.sleep(self.oss.faults.slow_s)

    def _check(self, request: Request) -> None:
        key = identify(request, self.oss.keys, self.oss.region, self.oss.now)
        if request.bucket and not self.oss.objects.has_bucket(request.bucket):
            raise Rejected(404, "NoSuchBucket", "The specified bucket does not exist.")
        right = "read" if request.method in ("GET", "HEAD") else "write"
        if not request.key and right == "read":
            right = "list"
        if key is None or right not in key.rights:
            raise Rejected(403, "AccessDenied", "You have no right to access this object.")

    def _operation(self, request: Request) -> Callable[[Request, bytes], None]:
        query, method = request.query, request.method
        if not request.key:
            if method == "GET":
                return self._list
            raise Rejected(405, "MethodNotAllowed", "The method is not allowed on a bucket.")
        self._check_name(request.key)
        if "uploads" in query and method == "POST":
            return self._begin_upload
        if "uploadId" in query:
            if query["uploadId"] not in self.oss.objects.parts:
                raise Rejected(404, "NoSuchUpload", "The specified upload does not exist.")
            parts = {"PUT": self._put_part, "POST": self._complete, "DELETE": self._abort}
            return parts.get(method, self._not_here)
        whole = {"PUT": self._put, "GET": self._get, "HEAD": self._get, "DELETE": self._delete}
        return whole.get(method, self._not_here)

    def _not_here(self, request: Request, body: bytes) -> None:
        raise Rejected(501, "NotImplemented", "This server has no such operation.")

    @staticmethod
    def _check_name(key: str) -> None:
        if len(key.encode()) > 1023 or key[0] in "/\\":
            raise Rejected(400, "InvalidObjectName", "The specified object is not valid.")

    # --- operations --------------------------------------------------------------------------

    def _put(self, request: Request, body: bytes) -> None:
        self._check_digest(request, body)
        self._store(request, body)

    def _store(self, request: Request, body: bytes, etag: str = "", text: str = "") -> None:
        data = body
        if self._fault is Fault.WRONG_CRC:
            data = body[:-1] + bytes([body[-1] ^ 1]) if body else b"x"
        content_type = request.headers.get("content-type", "application/octet-stream")
        replaces = not _forbids_overwrite(request)
        try:
            stored = self.oss.objects.put(
                request.bucket, request.key, data, content_type, etag, replaces=replaces
            )
        except FileExistsError:
            raise _already_exists() from None
        if self._fault is Fault.LOST_ANSWER:
            raise _Reset
        self._answer(200, text.encode(), self._object_headers(stored))

    def _check_digest(self, request: Request, body: bytes) -> None:
        digest = request.headers.get("content-md5")
        if digest and base64.b64decode(digest) != hashlib.md5(body).digest():
            raise Rejected(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")

    def _get(self, request: Request, body: bytes) -> None:
        stored = self.oss.objects.find(request.bucket, request.key)
        if stored is None:
            raise Rejected(404, "NoSuchKey", "The specified key does not exist.")
        data = self.oss.objects.data(request.bucket, request.key)
        headers = self._object_headers(stored) | {"Content-Type": stored.content_type}
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
        if found is None:
            self._answer_object(200, data, headers)
            return
        first = int(found[1]) if found[1] else max(0, len(data) - int(found[2]))
        last = int(found[2]) if found[1] and found[2] else len(data) - 1
        headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
        self._answer_object(206, data[first : last + 1], headers)

    def _answer_object(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        if self._fault is Fault.WRONG_CRC and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if self._fault is Fault.LOST_ANSWER:
            self._answer(status, data[: len(data) // 2], headers, length=len(data))
            raise _Reset
        self._answer(status, data, headers)

    def _delete(self, request: Request, body: bytes) -> None:
        self.oss.objects.delete(request.bucket, request.key)
        self._answer(204)

    def _begin_upload(self, request: Request, body: bytes) -> None:
        if _forbids_overwrite(request) and self.oss.objects.find(request.bucket, request.key):
            raise _already_exists()
        upload = self.oss.objects.begin_parts()
        names = f"<Bucket>{request.bucket}</Bucket><Key>{escape(request.key)}</Key>"
        self._answer_xml("InitiateMultipartUploadResult", f"{names}<UploadId>{upload}</UploadId>")

    def _put_part(self, request: Request, body: bytes) -> None:
        self._check_digest(request, body)
        upload, number = request.query["uploadId"], int(request.query["partNumber"])
        etag = self.oss.objects.put_part(upload, number, body)
        if self._fault is Fault.LOST_ANSWER:
            raise _Reset
        crc = crc64(body) ^ (self._fault is Fault.WRONG_CRC)
        self._answer(200, b"", {"ETag": f'"{etag}"', "x-oss-hash-crc64ecma": str(crc)})

    def _complete(self, request: Request, body: bytes) -> None:
        parts = self.oss.objects.parts[request.query["uploadId"]]
        told = [int(each.text or 0) for each in ElementTree.fromstring(body).iter("PartNumber")]
        if told != sorted(parts):
            raise Rejected(400, "InvalidPart", "One or more of the specified parts is missing.")
        data, etag = self.oss.objects.join_parts(request.query["uploadId"])
        text = f"<Key>{escape(request.key)}</Key><ETag>&quot;{etag}&quot;</ETag>"
        xml = f"<CompleteMultipartUploadResult>{text}</CompleteMultipartUploadResult>"
        self._store(request, data, etag, xml)

    def _abort(self, request: Request, body: bytes) -> None:
        self.oss.objects.parts.pop(request.query["uploadId"])
        self._answer(204)

    def _list(self, request: Request, body: bytes) -> None:
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        contents, folders = list[str](), dict[str, None]()
        for each in self.oss.objects.all(request.bucket):
            if not each.key.startswith(prefix):
                continue
            rest = each.key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
                continue
            contents.append(
                f"<Contents><Key>{quote(each.key)}</Key><Size>{each.size}</Size>"
                f"<ETag>&quot;{each.etag}&quot;</ETag><Type>Normal</Type>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                "<StorageClass>Standard</StorageClass></Contents>"
            )
        shown = [f"<CommonPrefixes><Prefix>{quote(f)}</Prefix></CommonPrefixes>" for f in folders]
        head = (
            f"<Name>{request.bucket}</Name><Prefix>{quote(prefix)}</Prefix><MaxKeys>1000</MaxKeys>"
            f"<Delimiter>{quote(delimiter)}</Delimiter><EncodingType>url</EncodingType>"
            f"<IsTruncated>false</IsTruncated><KeyCount>{len(contents)}</KeyCount>"
        )
        self._answer_xml("ListBucketResult", head + "".join(contents + shown))

    # --- answers -----------------------------------------------------------------------------

    @staticmethod
    def _object_headers(stored: Stored) -> dict[str, str]:
        return {
            "ETag": f'"{stored.etag}"',
            "x-oss-hash-crc64ecma": str(stored.crc),
            "x-oss-object-type": "Normal",
            "Accept-Ranges": "bytes",
        }

    def _answer_xml(self, root: str, content: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?><{root}>{content}</{root}>'
        self._answer(200, text.encode(), {"Content-Type": "application/xml"})

    def _answer_error(self, error: Rejected, request: Request) -> None:
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
            f"<RequestId>{uuid.uuid4().hex.upper()}</RequestId><HostId>127.0.0.1</HostId></Error>"
        ).encode()
        headers = {"Content-Type": "application/xml"}
        if request.method == "HEAD":
            headers["x-oss-err"] = base64.b64encode(text).decode()
        self._answer(error.status, text, headers)

    def _answer(
        self,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        self._note(status)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("x-oss-request-id", uuid.uuid4().hex.upper())
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _note(self, status: int) -> None:
        self.oss.log.append((self.command, unquote(self.path), status))

    def _reset(self) -> None:
        """As a peer that crashed: RST and no goodbye."""
        self.close_connection = True
        self.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()


def _forbids_overwrite(request: Request) -> bool:
    return request.headers.get("x-oss-forbid-overwrite") == "true"


def _already_exists() -> Rejected:
    message = "The object you specified already exists and can not be overwritten."
    return Rejected(409, "FileAlreadyExists", message)
