"""The checkpoints and VAEs that a request means: its own, for the second pass, or as refiner."""

from dataclasses import dataclass

from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import UnknownName, near_names
from sdapi.object_url import is_object_url
from sdapi.options import Options
from sdapi.services.catalog.catalog import AUTOMATIC, NONE, Catalog, Checkpoint, VAEFile
from sdapi.services.catalog.object_models import FetchedModels
from sdapi.services.generation.eas import EASFields
from sdapi.services.scripts.script import GenerationRequest


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A checkpoint with the VAE it is drawn with, None for its own."""

    checkpoint: Checkpoint
    file: ModelFile
    vae: ModelFile | None


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What one request draws with. What it names itself must be there, else it is an error."""

    catalog: Catalog
    request: GenerationRequest
    options: Options
    eas: EASFields
    #: those of object stores that were fetched for it; what is not there raises `NotFetched`
    objects: FetchedModels

    def checkpoint(self) -> Checkpoint:
        """The one the request names, else the server's."""
        if asked := self._asked_checkpoint:
            return self.catalog.named(asked, self.objects)
        return self.catalog.default_checkpoint(self.options.text("sd_model_checkpoint"))

    def vae(self, checkpoint: Checkpoint) -> VAEFile | None:
        """The one the request names, else the server's, if it is there."""
        asked = self._asked_vae
        name = asked or self.options.text("sd_vae") or AUTOMATIC
        if not asked and not self.catalog.has_vae(name):
            name = NONE
        overrides = self.options.flag("sd_vae_overrides_per_model_preferences")
        wins = self.eas.sd_vae is not None or overrides
        return self.catalog.vae_for(checkpoint, name, self.objects, overrides=wins)

    def further(self, name: str) -> NamedModel:
        """A checkpoint beside the job's own, with its VAE."""
        checkpoint = find_further_checkpoint(self.catalog, name, self.objects)
        vae = self.vae(checkpoint)
        return NamedModel(
            checkpoint,
            ModelFile.usable(checkpoint.path, checkpoint.sidecar),
            self.vae_file(vae),
        )

    def checkpoint_file(self, checkpoint: Checkpoint) -> ModelFile:
        """The file of what `checkpoint` found.

        Raises `ModelUnusable`, or `DefaultModelUnusable` where the request names none.
        """
        is_default = not self._asked_checkpoint
        return ModelFile.usable(checkpoint.path, checkpoint.sidecar, is_default=is_default)

    def vae_file(self, vae: VAEFile | None) -> ModelFile | None:
        """The file of what `vae` found; raises as `checkpoint_file` does."""
        if vae is None:
            return None
        is_named = vae.name == self._asked_vae or vae.path in self.objects.paths
        return ModelFile.usable(vae.path, is_default=not is_named)

    @property
    def _asked_checkpoint(self) -> str:
        """The name in the request, empty without one."""
        return str(self.eas.sd_model_checkpoint or self._override("sd_model_checkpoint") or "")

    @property
    def _asked_vae(self) -> str:
        return str(self.eas.sd_vae or self._override("sd_vae") or "")

    def _override(self, key: str) -> object:
        return (self.request.override_settings or {}).get(key)


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
