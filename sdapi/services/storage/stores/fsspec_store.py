"""S3 and its kin, through `fsspec`: whatever it has a file system for."""

import asyncio
import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sdapi.object_url import ObjectUrl
from sdapi.services.storage.stores.oss_config import ConfigError
from sdapi.services.storage.stores.store import (
    ObjectInfo,
    Reason,
    StoreError,
    TransferStopped,
    never,
)

_CHUNK = 1 << 20
#: for a whole call, and for each MiB that it sends: a client that waits for a store to say
#: "continue" knows no limit of its own
_CALL_S, _MIB_S = 30.0, 4.0
#: limits for packages whose own are longer than a request waits, and whose retries add to ours
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 20,
            "retries": {"total_max_attempts": 1},
        }
    }
}
#: what has to be installed for a scheme
_EXTRAS = {"s3": "s3fs"}
_REASONS = {
    "InvalidAccessKeyId": Reason.CREDENTIALS,
    "SignatureDoesNotMatch": Reason.CREDENTIALS,
    "ExpiredToken": Reason.CREDENTIALS,
    "InvalidToken": Reason.CREDENTIALS,
    "RequestTimeTooSkewed": Reason.CLOCK,
    "NoSuchBucket": Reason.NO_BUCKET,
    "AccessDenied": Reason.FORBIDDEN,
    "NoSuchKey": Reason.MISSING,
    "404": Reason.MISSING,
    "403": Reason.FORBIDDEN,
    "BadDigest": Reason.DAMAGED,
    "SlowDown": Reason.UNREACHABLE,
    "PreconditionFailed": Reason.EXISTS,
}


class FsspecStore:
    """Buckets of one scheme; keys and endpoint come from where its package looks for them.

    For S3 that is the AWS environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`.
    """

    def __init__(self, scheme: str) -> None:
        import fsspec

        try:
            # Listings must not come from a cache: other servers write too.
            self._files: Any = fsspec.filesystem(
                scheme,
                use_listings_cache=False,
                skip_instance_cache=True,
                **_OPTIONS.get(scheme, {}),
            )
            self._files.retries = 1  # tries are ours: s3fs makes five of each, with pauses
        except ImportError as error:
            extra = _EXTRAS.get(scheme, scheme)
            raise ConfigError(
                f"{scheme}:// needs the package {extra}: pip install {extra}"
            ) from error

    def put(self, url: ObjectUrl, path: Path, *, replaces: bool) -> None:
        # No file system of fsspec has a conditional write for all stores: a look before is the
        # best there is, and two servers may look at once.
        if not replaces and self._exists(url):
            if not self._is_there(url, path):
                raise StoreError(Reason.EXISTS, f"{url}: there is another object of this name")
            return
        with _errors(url):
            size = path.stat().st_size
            limit = self._limit(_CALL_S + _MIB_S * size / (1 << 20))
            self._files.put_file(str(path), _place(url), **limit)
        if not self._is_there(url, path):
            sentence = f"{url}: what is stored is not what was sent"
            raise StoreError(Reason.DAMAGED, sentence)

    def head(self, url: ObjectUrl) -> ObjectInfo:
        with _errors(url):
            found = self._files.info(_place(url), **self._limit(_CALL_S))
        if found.get("type") == "directory":
            raise StoreError(Reason.MISSING, f"{url}: there is no such object")
        return ObjectInfo(int(found["size"]), _etag(found) or str(found.get("LastModified", "")))

    def read(self, url: ObjectUrl, *, max_bytes: int) -> bytes:
        return b"".join(self._chunks(url, max_bytes))

    def download(
        self,
        url: ObjectUrl,
        path: Path,
        *,
        max_bytes: int,
        is_stopped: Callable[[], bool] = never,
    ) -> None:
        with path.open("wb") as file:
            for chunk in self._chunks(url, max_bytes):
                if is_stopped():
                    raise TransferStopped
                file.write(chunk)

    def names(self, prefix: ObjectUrl) -> Iterator[str]:
        try:
            with _errors(prefix):
                found = self._files.ls(_place(prefix), detail=True)
        except StoreError as error:
            if error.reason is Reason.MISSING:
                return
            raise
        for each in found:
            if each.get("type") == "file":
                yield str(each["name"]).rpartition("/")[2]

    def signed(self, url: ObjectUrl, seconds: int) -> str:
        with _errors(url):
            return str(self._files.sign(_place(url), expiration=seconds))

    def check(self, url: ObjectUrl) -> None:
        """List the prefix: fsspec has nothing that asks for the permission to write.

        A key may have rights below it and none for the rest of the bucket.
        """
        try:
            with _errors(url):
                self._files.ls(_place(url), detail=False)
        except StoreError as error:
            if error.reason is not Reason.MISSING:  # nothing is there yet
                raise

    def _chunks(self, url: ObjectUrl, max_bytes: int) -> Iterator[bytes]:
        size = self.head(url).size_bytes
        if size > max_bytes:
            raise StoreError(Reason.TOO_LARGE, f"{url}: it is larger than {max_bytes} bytes")
        with _errors(url), self._files.open(_place(url), "rb") as file:
            got = 0
            for chunk in iter(partial(file.read, _CHUNK), b""):
                got += len(chunk)
                yield chunk
        if got != size:
            raise StoreError(Reason.DAMAGED, f"{url}: {got} of {size} bytes arrived")

    def _limit(self, seconds: float) -> dict[str, float]:
        """The argument that bounds a call; only file systems of asyncio have it."""
        return {"timeout": seconds} if self._files.async_impl else {}

    def _exists(self, url: ObjectUrl) -> bool:
        try:
            self.head(url)
        except StoreError as error:
            if error.reason is Reason.MISSING:
                return False
            raise
        return True

    def _is_there(self, url: ObjectUrl, path: Path) -> bool:
        """Whether the object has the file's bytes, as far as the store tells of them."""
        with _errors(url):
            found = self._files.info(_place(url))
        if int(found["size"]) != path.stat().st_size:
            return False
        etag = _etag(found)
        if len(etag) != 32:  # of several parts: no digest of the content
            return True
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == etag


def _place(url: ObjectUrl) -> str:
    return f"{url.bucket}/{url.key}" if url.key else url.bucket


def _etag(found: dict[str, Any]) -> str:
    return str(found.get("ETag", "")).strip('"').lower()


@contextmanager
def _errors(url: ObjectUrl) -> Generator[None]:
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # each file system has exceptions of its own, often of no base
        raise _store_error(error, url) from error


def _store_error(error: Exception, url: ObjectUrl) -> StoreError:
    code = _code(error)
    told = f" ({code})" if code else f" ({type(error).__name__})"
    if code in _REASONS:
        return StoreError(_REASONS[code], f"{url}: the store refuses it{told}")
    if isinstance(error, FileNotFoundError):
        is_bucket = not url.key
        reason = Reason.NO_BUCKET if is_bucket else Reason.MISSING
        what = "bucket" if is_bucket else "object"
        return StoreError(reason, f"{url}: there is no such {what}")
    if isinstance(error, PermissionError):
        return StoreError(Reason.FORBIDDEN, f"{url}: the key has no permission for this{told}")
    if "credential" in type(error).__name__.lower():
        return StoreError(Reason.CREDENTIALS, f"{url}: there are no usable credentials{told}")
    return StoreError(Reason.UNREACHABLE, f"{url}: the store gives no usable answer{told}")


def _code(error: BaseException | None) -> str:
    """The store's own code, which file systems leave in the exception behind theirs."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        if isinstance(error, asyncio.TimeoutError):
            return ""
        error = error.__cause__
    return ""
