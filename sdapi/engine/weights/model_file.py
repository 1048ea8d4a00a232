"""Which file a model comes from, as it was when a job was made."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from sdapi.errors import DefaultModelUnusable, ModelUnusable


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A weight file or folder as it was when the job was made.

    Another file under the same name is another key.
    """

    path: Path
    sidecar: Path | None = None
    modified_ns: int = 0
    size_bytes: int = 0
    #: the server chose it, the request named none: that it cannot be used is not the caller's fault
    is_default: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, path: Path, sidecar: Path | None = None) -> "ModelFile":
        """Describe a file on disk."""
        stat = path.stat()
        return cls(path, sidecar, stat.st_mtime_ns, stat.st_size)

    @classmethod
    def usable(
        cls, path: Path, sidecar: Path | None = None, *, is_default: bool = False
    ) -> "ModelFile":
        """As `of`; raises `ModelUnusable`, or for a default `DefaultModelUnusable`, that says why a
        file cannot be described."""
        file = cls(path, sidecar, is_default=is_default)
        with file.blamed():
            try:
                stat = path.stat()
            except FileNotFoundError:
                raise ModelUnusable(f"{path.name}: the file is gone") from None
            except OSError as error:
                reason = error.strerror or error
                raise ModelUnusable(f"{path.name}: cannot be read ({reason})") from error
        return replace(file, modified_ns=stat.st_mtime_ns, size_bytes=stat.st_size)

    @contextmanager
    def blamed(self) -> Generator[None]:
        """Make of a `ModelUnusable` about this file a `DefaultModelUnusable` where it is that."""
        try:
            yield
        except ModelUnusable as error:
            if not self.is_default:
                raise
            raise DefaultModelUnusable(
                f"the model that the server draws with cannot be used: {error.detail}"
            ) from error


def model_paths(jobs: Any) -> frozenset[Path]:
    """The paths of every model file that jobs, or anything made of dataclasses, refer to."""
    return frozenset(file.path for file in _model_files(jobs))


def _model_files(value: Any) -> Iterator[ModelFile]:
    if isinstance(value, ModelFile):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _model_files(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _model_files(each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _model_files(getattr(value, each.name))
