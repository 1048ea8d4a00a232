"""`POST /sdapi/v1/create/embedding` (contract: webui-api 14)."""

from pathlib import Path

from sdapi.errors import BadRequest, StorageFailed
from sdapi.services.catalog.catalog import Checkpoint
from sdapi.services.storage.leftovers import Leftovers
from sdapi.services.storage.local_disk import replace_file

_MAX_NAME = 200
_MAX_VECTORS = 75


class NotCreated(BadRequest):
    """What the reference tells as a text under status 200."""


def create_embedding(
    folder: Path, checkpoint: Checkpoint, name: str, count: int, text: str, *, overwrites: bool
) -> Path:
    """Write an embedding that starts with the meaning of a text; returns its file.

    Letters, digits and `._- ` of the name stay. Raises `NotCreated`, `BadRequest`,
    `ModelUnusable`, `StorageFailed`.
    """
    from sdapi.engine.networks.new_embedding import embedding_file, new_embedding  # torch

    if not 1 <= count <= _MAX_VECTORS:
        raise BadRequest(f"num_vectors_per_token: {count}; from 1 to {_MAX_VECTORS}")
    kept = "".join(each for each in name if each.isalnum() or each in "._- ").strip(". ")
    if not kept:
        raise NotCreated("Name cannot be empty!")
    if len(kept.encode()) > _MAX_NAME:
        raise BadRequest(f"name: {len(kept)} characters; at most {_MAX_NAME} bytes")
    path = folder / f"{kept}.pt"
    if path.exists() and not overwrites:
        raise NotCreated(f"file {path} already exists")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Leftovers().clear([folder])
        replace_file(path, embedding_file(kept, new_embedding(checkpoint.path, count, text)))
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {error.strerror}") from error
    return path
