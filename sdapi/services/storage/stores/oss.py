"""OSS, through `oss2`."""

import base64
import hashlib
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sdapi.object_url import ObjectUrl
from sdapi.services.storage.stores.oss_config import OssConfig
from sdapi.services.storage.stores.oss_errors import store_error
from sdapi.services.storage.stores.store import (
    ObjectInfo,
    Reason,
    StoreError,
    TransferStopped,
    never,
)

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 20.0
POOL_SIZE = 48
#: larger files go in parts, so that a broken connection costs one part
MULTIPART_BYTES, PART_BYTES = 32 << 20, 8 << 20
_PART_TRIES = 3
_CHUNK = 1 << 20
_FORBID_OVERWRITE = "x-oss-forbid-overwrite"
_CRC = "x-oss-hash-crc64ecma"
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".txt": "text/plain"}


class OssStore:
    """Buckets of one account at one endpoint. Connections are kept and shared between threads.

    `oss2` takes proxies from the environment, and compares the CRC64 of what was sent and received
    with the store's.
    """

    def __init__(self, config: OssConfig) -> None:
        import oss2  # takes half a second, and most servers need none

        self._oss2: Any = oss2
        self._config = config
        self._session: Any = oss2.Session(pool_size=POOL_SIZE)
        # Otherwise requests would put credentials from a .netrc into the header we sign.
        self._session.session.auth = _as_signed
        self._auth = _auth(oss2, config)
        #: guards the buckets
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str], Any] = {}

    def put(self, url: ObjectUrl, path: Path, *, replaces: bool) -> None:
        with self._errors(url):
            try:
                self._put(url, path, {} if replaces else {_FORBID_OVERWRITE: "true"})
            except self._oss2.exceptions.ServerError as error:
                # Our own earlier try may have arrived, with its answer lost.
                if error.code != "FileAlreadyExists" or not self._is_there(url, path):
                    raise

    def head(self, url: ObjectUrl) -> ObjectInfo:
        with self._errors(url):
            found = self._bucket(url).head_object(url.key)
            return ObjectInfo(found.content_length, found.etag)

    def read(self, url: ObjectUrl, *, max_bytes: int) -> bytes:
        with self._errors(url):
            return b"".join(_bounded(self._bucket(url).get_object(url.key), url, max_bytes))

    def download(
        self,
        url: ObjectUrl,
        path: Path,
        *,
        max_bytes: int,
        is_stopped: Callable[[], bool] = never,
    ) -> None:
        with self._errors(url), path.open("wb") as file:
            found = self._bucket(url).get_object(url.key)
            for chunk in _bounded(found, url, max_bytes):
                if is_stopped():
                    found.resp.response.close()
                    raise TransferStopped
                file.write(chunk)

    def names(self, prefix: ObjectUrl) -> Iterator[str]:
        folder = f"{prefix.key}/" if prefix.key else ""
        with self._errors(prefix):
            found = self._oss2.ObjectIteratorV2(
                self._bucket(prefix), prefix=folder, delimiter="/", max_keys=1000
            )
            yield from (each.key[len(folder) :] for each in found if not each.is_prefix())

    def signed(self, url: ObjectUrl, seconds: int) -> str:
        bucket = self._bucket(url, self._config.public_endpoint)
        with self._errors(url):
            return bucket.sign_url("GET", url.key, seconds, slash_safe=True)

    def check(self, url: ObjectUrl) -> None:
        """Begin an upload in parts, which takes the permission to write, and drop it again."""
        bucket, key = self._bucket(url), url.below(".sdapi-check").key
        with self._errors(url):
            upload = bucket.init_multipart_upload(key).upload_id
            try:
                bucket.abort_multipart_upload(key, upload)
            except self._oss2.exceptions.ServerError:
                return  # it may write and not abort; an upload without parts costs nothing

    def _put(self, url: ObjectUrl, path: Path, headers: dict[str, str]) -> None:
        headers = headers | {"Content-Type": _content_type(path)}
        if path.stat().st_size > MULTIPART_BYTES:
            self._put_in_parts(url, path, headers)
            return
        data = path.read_bytes()
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        self._bucket(url).put_object(url.key, data, headers=headers | {"Content-MD5": digest})

    def _put_in_parts(self, url: ObjectUrl, path: Path, headers: dict[str, str]) -> None:
        bucket = self._bucket(url)
        upload = bucket.init_multipart_upload(url.key, headers=headers).upload_id
        try:
            with path.open("rb") as file:
                numbered = enumerate(iter(partial(file.read, PART_BYTES), b""), 1)
                parts = [self._put_part(bucket, url, upload, n, data) for n, data in numbered]
            bucket.complete_multipart_upload(url.key, upload, parts, headers=headers)
        except BaseException:
            with _ignored(self._oss2.exceptions.OssError):
                bucket.abort_multipart_upload(url.key, upload)
            raise

    def _put_part(self, bucket: Any, url: ObjectUrl, upload: str, number: int, data: bytes) -> Any:
        for tries_left in reversed(range(_PART_TRIES)):
            try:
                done = bucket.upload_part(url.key, upload, number, data)
                return self._oss2.models.PartInfo(
                    number, done.etag, size=len(data), part_crc=done.crc
                )
            except self._oss2.exceptions.OssError as error:
                if not tries_left or not store_error(error, url, "").is_passing:
                    raise
        raise AssertionError("no try left")

    def _is_there(self, url: ObjectUrl, path: Path) -> bool:
        """Whether the object has the file's bytes."""
        found = self._bucket(url).head_object(url.key)
        crc = self._oss2.utils.Crc64()
        with path.open("rb") as file:
            for chunk in iter(partial(file.read, _CHUNK), b""):
                crc.update(chunk)
        return found.headers.get(_CRC) == str(crc.crc)

    def _bucket(self, url: ObjectUrl, endpoint: str | None = None) -> Any:
        key = (url.bucket, endpoint or self._config.endpoint)
        with self._lock:
            if key not in self._buckets:
                self._buckets[key] = self._oss2.Bucket(
                    self._auth,
                    key[1],
                    url.bucket,
                    session=self._session,
                    connect_timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                    region=self._config.region,
                    # keys are checked by us; oss2 refuses some that the store takes
                    is_verify_object_strict=False,
                )
            return self._buckets[key]

    @contextmanager
    def _errors(self, url: ObjectUrl) -> Generator[None]:
        try:
            yield
        except self._oss2.exceptions.OssError as error:
            raise store_error(error, url, self._config.endpoint) from error
        except _broken_transfers() as error:
            name = type(error).__name__
            raise StoreError(Reason.UNREACHABLE, f"{url}: the transfer broke: {name}") from error


def _auth(oss2: Any, config: OssConfig) -> Any:
    version = "v4" if config.region else "v1"
    keys = (config.access_key_id, config.access_key_secret)
    if config.security_token:
        return oss2.StsAuth(*keys, config.security_token, auth_version=version)
    return oss2.make_auth(*keys, auth_version=version)


def _as_signed(request: Any) -> Any:
    return request


def _broken_transfers() -> tuple[type[Exception], ...]:
    """What `requests` raises while a body is read, which `oss2` lets through."""
    import requests
    import urllib3

    return (requests.RequestException, urllib3.exceptions.HTTPError)


@contextmanager
def _ignored(*errors: type[Exception]) -> Generator[None]:
    try:
        yield
    except errors:
        return


def _bounded(found: Any, url: ObjectUrl, max_bytes: int) -> Iterator[bytes]:
    """The chunks of an answer, no more than so many bytes, with their CRC checked at the end."""
    size = 0
    if found.content_length is not None and found.content_length > max_bytes:
        found.resp.response.close()
        raise _too_large(url, max_bytes)
    while chunk := found.read(_CHUNK):
        size += len(chunk)
        if size > max_bytes:
            found.resp.response.close()
            raise _too_large(url, max_bytes)
        yield chunk
    if found.server_crc is not None and found.client_crc != found.server_crc:
        sentence = f"{url}: the checksum of what arrived is not that of what is stored"
        raise StoreError(Reason.DAMAGED, sentence)


def _too_large(url: ObjectUrl, max_bytes: int) -> StoreError:
    return StoreError(Reason.TOO_LARGE, f"{url}: it is larger than {max_bytes} bytes")


def _content_type(path: Path) -> str:
    return _TYPES.get(path.suffix.lower(), "application/octet-stream")
