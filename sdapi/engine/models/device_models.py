"""The models of one device: loaded once, kept in the cache, lent to the job that runs."""

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import Components, load_checkpoint, load_vae
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.latents.tiny_vae import Half, TinyVAE, load_tiny, tiny_file
from sdapi.engine.models.compilation import compile_unet
from sdapi.engine.models.model_cache import ModelCache, Movable
from sdapi.engine.models.offload import Offload, OffloadLevel, level_for, parts_of
from sdapi.engine.networks.active import ActiveNetworks
from sdapi.engine.networks.hypernetwork import LoadedHypernetwork, read_hypernetwork
from sdapi.engine.networks.network_file import LoadedNetwork, read_network
from sdapi.engine.networks.selection import HypernetUse, LoraUse, NetworkFiles, NetworkSet
from sdapi.engine.text.conditioning import Conditioner
from sdapi.engine.upscaling.image_model import ImageModel, load_image_model
from sdapi.engine.weights.model_file import ModelFile
from sdapi.engine.weights.small_network import LoadedSmallNetwork, N, load_network
from sdapi.engine.weights.state_dict import read_state_dict
from sdapi.engine.weights.tensor_bytes import module_bytes
from sdapi.errors import ModelUnusable

L = TypeVar("L", bound=Movable)


@dataclass(slots=True)
class LoadedCheckpoint:
    """A checkpoint in memory, with the texts it has encoded."""

    components: Components
    #: how little of it is on a GPU at a time
    offload_level: OffloadLevel = OffloadLevel.NONE
    _offload: Offload | None = None
    conditioner: Conditioner = field(init=False)
    networks: ActiveNetworks = field(init=False)

    def __post_init__(self) -> None:
        self.conditioner = Conditioner(self.components)
        self.networks = ActiveNetworks(self.components)

    @property
    def size_bytes(self) -> int:
        return self.components.size_bytes + self.networks.size_bytes

    def move(self, device: torch.device) -> None:
        """Move every part; encoded texts are forgotten, they live on the old device.

        Merged networks move along in the weights, originals stay in main memory.
        """
        self.networks.forget()
        if self._offload is not None:
            self._offload.detach()
            self._offload = None
        if device.type != "cpu" and self.offload_level is not OffloadLevel.NONE:
            self._offload = Offload(device, parts_of(self.components, self.offload_level))
        else:
            for module in self.components.modules:
                module.to(device)
        for encoder in self.components.text_encoders:
            if encoder.projection is not None:
                encoder.projection = encoder.projection.to(device)
        self.conditioner.clear()


@dataclass(frozen=True, slots=True)
class Loading:
    """What the flags ask to be done with a checkpoint that has been read."""

    medvram: bool = False
    medvram_sdxl: bool = False
    lowvram: bool = False
    #: `--opt-channelslast`
    channels_last: bool = False
    #: `--optimize near`
    compiles: bool = False

    def prepare(self, components: Components) -> OffloadLevel:
        """Lay out and compile the UNet as asked; returns how the checkpoint is offloaded."""
        if self.channels_last:
            for module in (components.unet, components.vae):
                nn.Module.to(module, memory_format=torch.channels_last)
        if self.compiles:
            compile_unet(components.unet)
        return level_for(
            medvram=self.medvram,
            medvram_sdxl=self.medvram_sdxl,
            lowvram=self.lowvram,
            is_sdxl=components.family is Family.SDXL,
        )


@dataclass(slots=True)
class LoadedVAE:
    """A VAE from a file of its own."""

    module: Any

    @property
    def size_bytes(self) -> int:
        return module_bytes(self.module)

    def move(self, device: torch.device) -> None:
        self.module.to(device)


@dataclass(slots=True)
class Models:
    """Reads model files into a cache and lends them out; belongs to one thread."""

    device: torch.device
    precision: Precision
    cache: ModelCache[Movable]
    loading: Loading = field(default_factory=Loading)
    #: folder of TAESD's files
    vae_approx_dir: Path = Path("models", "VAE-approx")

    @contextmanager
    def checkpoint(self, file: ModelFile) -> Generator[LoadedCheckpoint]:
        """A checkpoint on the device; raises `ModelUnusable`, or `DefaultModelUnusable`.

        Weights made in inference mode could not be trained on: loading leaves it.
        """
        with ExitStack() as lent:
            with torch.inference_mode(False), torch.no_grad():
                found = lent.enter_context(
                    self.cache.use(file, lambda: self._load_checkpoint(file))
                )
            assert isinstance(found, LoadedCheckpoint)
            yield found

    @contextmanager
    def vae(self, file: ModelFile, beside: Components) -> Generator[AutoencoderKL]:
        """A VAE of its own file, for use beside a checkpoint; raises as `checkpoint` does."""
        with self.cache.use(("vae", file), lambda: self._load_vae(file, beside)) as found:
            assert isinstance(found, LoadedVAE)
            yield found.module

    @contextmanager
    def tiny_halves(
        self, full: AutoencoderKL, beside: Components, halves: Sequence[Half]
    ) -> Generator[AutoencoderKL]:
        """A VAE with TAESD in place of some halves; raises `ModelUnusable` without its files."""
        with ExitStack() as lent:
            found = {half: lent.enter_context(self._tiny(beside.family, half)) for half in halves}
            yield TinyVAE.instead_of(
                full,
                beside.scale_factor,
                encoder=found.get("encoder"),
                decoder=found.get("decoder"),
            )

    @contextmanager
    def _tiny(self, family: Family, half: Half) -> Generator[nn.Module]:
        path = tiny_file(self.vae_approx_dir, family, half)

        def load() -> LoadedVAE:
            return LoadedVAE(load_tiny(path, half, self.precision.vae))

        with self.cache.use(("taesd", ModelFile.of(path)), load) as found:
            assert isinstance(found, LoadedVAE)
            yield found.module

    def activate(
        self, loaded: LoadedCheckpoint, wanted: NetworkSet, files: NetworkFiles
    ) -> tuple[str, ...]:
        """Make `wanted` the networks of a checkpoint, and `files`' embeddings words it knows.

        Returns warnings of what cannot be used.
        """
        warnings = loaded.networks.warnings_of(wanted)
        if warnings is None:
            warnings = self._activate(loaded, wanted)
        loaded.conditioner.use_weights(loaded.networks.text_state)
        loaded.conditioner.use_embeddings(files.embeddings, loaded.networks.embeddings)
        return warnings

    def _activate(self, loaded: LoadedCheckpoint, wanted: NetworkSet) -> tuple[str, ...]:
        loras: list[tuple[LoraUse, LoadedNetwork]] = []
        hypernets: list[tuple[HypernetUse, LoadedHypernetwork]] = []
        refused: dict[str, None] = {}
        dtype = loaded.components.unet.dtype
        with ExitStack() as lent:
            for use in wanted.loras:
                try:
                    loras.append((use, lent.enter_context(self._lora(use.file))))
                except ModelUnusable as error:
                    refused[f"lora not used: {error}"] = None
            for use in wanted.hypernets:
                try:
                    found = lent.enter_context(self._hypernet(use.file, dtype))
                    hypernets.append((use, found))
                except ModelUnusable as error:
                    refused[f"hypernet not used: {error}"] = None
            return loaded.networks.activate(wanted, loras, hypernets, list(refused))

    @contextmanager
    def _lora(self, file: ModelFile) -> Generator[LoadedNetwork]:
        with self.cache.use(("lora", file), lambda: read_network(file.path)) as found:
            assert isinstance(found, LoadedNetwork)
            yield found

    @contextmanager
    def _hypernet(self, file: ModelFile, dtype: torch.dtype) -> Generator[LoadedHypernetwork]:
        key = ("hypernet", file, dtype)
        with self.cache.use(key, lambda: read_hypernetwork(file.path, dtype)) as found:
            assert isinstance(found, LoadedHypernetwork)
            yield found

    @contextmanager
    def image_model(self, file: ModelFile, *, prefers_half: bool) -> Generator[ImageModel]:
        """An upscaler or face restorer on the device; raises `ModelUnusable`."""
        half = prefers_half and self.precision.unet == torch.float16
        key = ("image model", file, half)
        with self.cache.use(key, lambda: load_image_model(file, prefers_half=half)) as found:
            assert isinstance(found, ImageModel)
            yield found

    @contextmanager
    def lend(self, key: Hashable, load: Callable[[], L], kind: type[L]) -> Generator[L]:
        """A model of any other kind under a key of its own; raises what `load` does."""
        with self.cache.use((kind, key), load) as found:
            assert isinstance(found, kind)
            yield found

    @contextmanager
    def network(self, file: ModelFile, build: Callable[[], N]) -> Generator[N]:
        """A small network of a known layout, in float32; raises `ModelUnusable`."""
        with self.cache.use((build, file), lambda: load_network(file, build)) as found:
            assert isinstance(found, LoadedSmallNetwork)
            yield found.module

    def _load_checkpoint(self, file: ModelFile) -> LoadedCheckpoint:
        with file.blamed():
            components = load_checkpoint(file.path, file.sidecar, self.precision)
        return LoadedCheckpoint(components, self.loading.prepare(components))

    def _load_vae(self, file: ModelFile, beside: Components) -> LoadedVAE:
        with file.blamed():
            return LoadedVAE(_read_vae(file.path, beside, self.precision.vae))


def _read_vae(path: Path, beside: Components, dtype: torch.dtype) -> AutoencoderKL:
    """A VAE for use beside a checkpoint, from a file of its own or a whole checkpoint's."""
    weights = read_state_dict(path)
    prefix = "first_stage_model."
    if any(key.startswith(prefix) for key in weights):
        weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    try:
        module = load_vae(weights, beside.scale_factor, dtype)
    except ModelUnusable as error:
        raise ModelUnusable(f"{path.name}: {error}") from error
    if module.config["latent_channels"] != beside.latent_channels:
        raise ModelUnusable(f"{path.name}: a VAE for another kind of model")
    return module
