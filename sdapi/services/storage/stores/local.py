"""A mounted folder seen as the store that it shows."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdapi.object_url import ObjectUrl
from sdapi.services.storage.local_disk import replace_file
from sdapi.services.storage.stores.store import (
    ObjectInfo,
    Reason,
    StoreError,
    TransferStopped,
    never,
)

_CHUNK = 1 << 20


class LocalStore:
    """The objects below a prefix, as files of a folder: of a FUSE mount, or without any keys."""

    def __init__(self, prefix: ObjectUrl, folder: Path) -> None:
        self._prefix = prefix
        self._folder = folder.resolve()

    def put(self, url: ObjectUrl, path: Path, *, replaces: bool) -> None:
        place = self._place(url)
        with _errors(url):
            if not replaces and place.exists() and place.read_bytes() != path.read_bytes():
                raise StoreError(Reason.EXISTS, f"{url}: there is another object of this name")
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, path.read_bytes())

    def head(self, url: ObjectUrl) -> ObjectInfo:
        with _errors(url):
            found = self._place(url).stat()
            return ObjectInfo(found.st_size, f"{found.st_mtime_ns:x}-{found.st_size:x}")

    def read(self, url: ObjectUrl, *, max_bytes: int) -> bytes:
        with _errors(url), self._place(url).open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise StoreError(Reason.TOO_LARGE, f"{url}: it is larger than {max_bytes} bytes")
        return data

    def download(
        self,
        url: ObjectUrl,
        path: Path,
        *,
        max_bytes: int,
        is_stopped: Callable[[], bool] = never,
    ) -> None:
        if self.head(url).size_bytes > max_bytes:
            raise StoreError(Reason.TOO_LARGE, f"{url}: it is larger than {max_bytes} bytes")
        with _errors(url), self._place(url).open("rb") as source, path.open("wb") as file:
            while chunk := source.read(_CHUNK):  # a mount may be as slow as its store
                if is_stopped():
                    raise TransferStopped
                file.write(chunk)

    def names(self, prefix: ObjectUrl) -> Iterator[str]:
        with _errors(prefix):
            place = self._place(prefix)
            yield from (p.name for p in place.iterdir() if p.is_file()) if place.is_dir() else ()

    def signed(self, url: ObjectUrl, seconds: int) -> str:
        raise StoreError(Reason.REFUSED, f"{url}: a link needs the store's keys")

    def check(self, url: ObjectUrl) -> None:
        return None

    def _place(self, url: ObjectUrl) -> Path:
        """The file; a link inside the folder must not lead out of it."""
        try:
            place = (self._folder / url.relative_to(self._prefix)).resolve()
        except (OSError, RuntimeError) as error:  # a loop of links
            raise StoreError(Reason.BAD_NAME, f"{url}: it cannot be resolved") from error
        if not place.is_relative_to(self._folder):
            raise StoreError(Reason.FORBIDDEN, f"{url}: it leads out of its folder")
        return place


@contextmanager
def _errors(url: ObjectUrl) -> Generator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise StoreError(Reason.MISSING, f"{url}: there is no such object") from error
    except OSError as error:
        sentence = f"{url}: the folder cannot be used: {error.strerror}"
        raise StoreError(Reason.UNREACHABLE, sentence) from error
