"""A further checkpoint that a request names: for the second pass, or as refiner."""

from dataclasses import dataclass

from sdapi.engine.model_file import ModelFile
from sdapi.errors import UnknownName, near_names
from sdapi.object_url import is_object_url
from sdapi.services.catalog.catalog import Catalog, Checkpoint
from sdapi.services.catalog.object_models import FetchedModels


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A checkpoint with the VAE it is drawn with, None for its own."""

    checkpoint: Checkpoint
    file: ModelFile
    vae: ModelFile | None


def find_further_checkpoint(catalog: Catalog, name: str, objects: FetchedModels) -> Checkpoint:
    """The checkpoint of a title, a part of one, or an object's URL.

    Raises `UnknownName` in the webui's words, or what `FetchedModels.file` does.
    """
    if is_object_url(name):
        return catalog.named(name, objects, field="checkpoint")
    try:
        return catalog.closest_checkpoint(name)
    except UnknownName:
        near = near_names(name, [checkpoint.title for checkpoint in catalog.checkpoints])
        text = f"Could not find checkpoint with name {name}; there are {near}"
        raise UnknownName(text) from None
