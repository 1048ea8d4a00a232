"""LoRAs and embeddings as their listings tell of them (contract: webui-api 13, 15)."""

import json
from pathlib import Path
from typing import Any

from sdapi.errors import ModelUnusable
from sdapi.services.catalog.catalog import Checkpoint
from sdapi.services.catalog.model_files.safetensors_header import read_header
from sdapi.services.catalog.networks import Lora, NetworkCatalog
from sdapi.settings import Settings

_TOKEN_TABLE = "token_embedding.weight"
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})


def lora_metadata(lora: Lora) -> dict[str, Any]:
    """What the file says of itself; texts that look like JSON objects or lists are read."""
    return {key: _read(value) for key, value in lora.metadata.items()}


def _read(value: str) -> Any:
    if value[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def list_embeddings(
    networks: NetworkCatalog, checkpoint: Checkpoint | None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Every readable embedding, `skipped` when its vectors do not fit the checkpoint in use.

    Of a checkpoint whose header does not tell its width, all are `loaded`. Reads files.
    """
    from sdapi.engine.networks.embedding_file import read_embedding  # imports torch

    width = None if checkpoint is None else _text_width(checkpoint)
    found: dict[str, dict[str, dict[str, Any]]] = {"loaded": {}, "skipped": {}}
    for file in networks.embeddings():
        try:
            embedding = read_embedding(file.path)
        except ModelUnusable:
            continue
        place = "loaded" if width in (None, embedding.width) else "skipped"
        found[place][embedding.name] = {
            "step": embedding.step,
            "sd_checkpoint": embedding.sd_checkpoint,
            "sd_checkpoint_name": embedding.sd_checkpoint_name,
            "shape": embedding.width,
            "vectors": len(embedding),
        }
    return found


def _text_width(checkpoint: Checkpoint) -> int | None:
    """The width of its text encoders' vectors, all together."""
    if checkpoint.path.suffix != ".safetensors":
        return None
    shapes = [
        entry["shape"]
        for key, entry in read_header(checkpoint.path).items()
        if key.endswith(_TOKEN_TABLE) and isinstance(entry, dict)
    ]
    return sum(int(shape[-1]) for shape in shapes) or None


def find_thumbnail(filename: str, settings: Settings) -> Path | None:
    """A picture in the folders of networks and checkpoints; None for anything else."""
    folders = (
        *settings.lora_dirs,
        *settings.checkpoint_dirs,
        settings.hypernetwork_dir,
        settings.embeddings_dir,
    )
    try:
        path = Path(filename).resolve()
        is_there = path.suffix.lower() in _PICTURES and path.is_file()
        inside = any(path.is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, RuntimeError, ValueError):
        return None
    return path if is_there and inside else None
