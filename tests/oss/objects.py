"""Objects on disk, with the digests that OSS tells of them."""

import hashlib
import json
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.oss.crc64 import crc64


@dataclass(frozen=True)
class Stored:
    """What is known of an object besides its bytes."""

    key: str
    size: int
    etag: str
    crc: int
    content_type: str


class Objects:
    """Buckets are folders; an object is a file of bytes and one of JSON, named by a digest."""

    def __init__(
        self, root: Path, buckets: tuple[str, ...], checksum: Callable[[bytes], int] = crc64
    ) -> None:
        self.root = root
        self._checksum = checksum
        #: guards the counts, the parts and the moment in which an object appears
        self._lock = threading.Lock()
        #: how often each object was stored, by bucket and key
        self.writes: Counter[tuple[str, str]] = Counter()
        self.parts: dict[str, dict[int, bytes]] = {}
        for bucket in buckets:
            (root / bucket).mkdir(parents=True, exist_ok=True)

    def has_bucket(self, bucket: str) -> bool:
        return bool(bucket) and (self.root / bucket).is_dir()

    def put(
        self,
        bucket: str,
        key: str,
        data: bytes,
        content_type: str,
        etag: str = "",
        *,
        replaces: bool = True,
    ) -> Stored:
        """Store an object; raises `FileExistsError` where it may not replace one."""
        etag = etag or hashlib.md5(data).hexdigest().upper()
        stored = Stored(key, len(data), etag, self._checksum(data), content_type)
        path = self._path(bucket, key)
        with self._lock:
            if not replaces and self.find(bucket, key):
                raise FileExistsError(key)
            _write(path.with_suffix(".data"), data)
            _write(path.with_suffix(".json"), json.dumps(asdict(stored)).encode())
            self.writes[bucket, key] += 1
        return stored

    def find(self, bucket: str, key: str) -> Stored | None:
        try:
            return Stored(**json.loads(self._path(bucket, key).with_suffix(".json").read_bytes()))
        except FileNotFoundError:
            return None

    def data(self, bucket: str, key: str) -> bytes:
        return self._path(bucket, key).with_suffix(".data").read_bytes()

    def delete(self, bucket: str, key: str) -> None:
        for suffix in (".json", ".data"):
            self._path(bucket, key).with_suffix(suffix).unlink(missing_ok=True)

    def all(self, bucket: str) -> list[Stored]:
        with self._lock:
            found = [json.loads(p.read_bytes()) for p in (self.root / bucket).glob("*.json")]
        return sorted((Stored(**each) for each in found), key=lambda stored: stored.key)

    def keys(self, bucket: str) -> list[str]:
        return [stored.key for stored in self.all(bucket)]

    def begin_parts(self) -> str:
        upload = uuid.uuid4().hex.upper()
        with self._lock:
            self.parts[upload] = {}
        return upload

    def put_part(self, upload: str, number: int, data: bytes) -> str:
        with self._lock:
            self.parts[upload][number] = data
        return hashlib.md5(data).hexdigest().upper()

    def join_parts(self, upload: str) -> tuple[bytes, str]:
        """The bytes of all parts, and the ETag of what they make."""
        with self._lock:
            parts = sorted(self.parts.pop(upload).items())
        digests = b"".join(hashlib.md5(data).digest() for _, data in parts)
        etag = f"{hashlib.md5(digests).hexdigest().upper()}-{len(parts)}"
        return b"".join(data for _, data in parts), etag

    def _path(self, bucket: str, key: str) -> Path:
        return self.root / bucket / hashlib.sha256(key.encode()).hexdigest()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
