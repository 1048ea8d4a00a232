"""Checkpoints, VAEs and LoRAs that a request names as `oss://bucket/key`."""

from pathlib import Path

from sdapi.errors import BadRequest
from sdapi.services.storage.client_errors import as_client_error
from sdapi.services.storage.storage import Storage
from sdapi.services.storage.stores.store import StoreError

_SUFFIXES = (".safetensors", ".ckpt", ".pt")


class ObjectModels:
    """Model files in object stores, fetched when a job needs them. Blocks: call it in a thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def file(self, url: str, *, field: str) -> Path:
        """The file of a URL on local disk, with its `.yaml` beside it if there is one.

        Raises `PathNotAllowed`, `BadRequest`, `BadUrl` for what is not there or too large,
        `StoreUnavailable`, `StoreRefused` or `StorageFailed`.
        """
        found, _ = self._storage.places.allowed(url, field=field)
        if not found.name.lower().endswith(_SUFFIXES):
            raise BadRequest(f"{field} {found}: a model's name ends in {', '.join(_SUFFIXES)}")
        try:
            return self._storage.files.fetch(found, beside=(".yaml",))
        except StoreError as error:
            raise as_client_error(error, field) from error
