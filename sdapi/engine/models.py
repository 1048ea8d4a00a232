"""The models of one device: loaded once, kept in the cache, lent to the job that runs."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdapi.engine.checkpoints.checkpoint import Components, load_checkpoint, load_vae
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.checkpoints.weights import read_state_dict
from sdapi.engine.job import ModelFile
from sdapi.engine.model_cache import ModelCache, Movable
from sdapi.engine.text.conditioning import Conditioner
from sdapi.errors import ModelUnusable


@dataclass(slots=True)
class LoadedCheckpoint:
    """A checkpoint in memory, with the texts it has encoded."""

    components: Components
    conditioner: Conditioner = field(init=False)

    def __post_init__(self) -> None:
        self.conditioner = Conditioner(self.components)

    @property
    def size_bytes(self) -> int:
        return self.components.size_bytes

    def move(self, device: torch.device) -> None:
        """Move every part; encoded texts are forgotten, they live on the old device."""
        for module in self.components.modules:
            module.to(device)
        for encoder in self.components.text_encoders:
            if encoder.projection is not None:
                encoder.projection = encoder.projection.to(device)
        self.conditioner.clear()


@dataclass(slots=True)
class LoadedVAE:
    """A VAE from a file of its own."""

    module: Any

    @property
    def size_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.module.parameters())

    def move(self, device: torch.device) -> None:
        self.module.to(device)


@dataclass(slots=True)
class Models:
    """Reads model files into a cache and lends them out; belongs to one thread."""

    device: torch.device
    precision: Precision
    cache: ModelCache[Movable]

    @contextmanager
    def checkpoint(self, file: ModelFile) -> Generator[LoadedCheckpoint]:
        """A checkpoint on the device; raises `ModelUnusable`."""
        with self.cache.use(file, lambda: self._load_checkpoint(file)) as found:
            assert isinstance(found, LoadedCheckpoint)
            yield found

    @contextmanager
    def vae(self, file: ModelFile, beside: Components) -> Generator[AutoencoderKL]:
        """A VAE of its own file, for use beside a checkpoint; raises `ModelUnusable`."""
        with self.cache.use(("vae", file), lambda: self._load_vae(file, beside)) as found:
            assert isinstance(found, LoadedVAE)
            yield found.module

    def _load_checkpoint(self, file: ModelFile) -> LoadedCheckpoint:
        return LoadedCheckpoint(load_checkpoint(file.path, file.sidecar, self.precision))

    def _load_vae(self, file: ModelFile, beside: Components) -> LoadedVAE:
        weights = read_state_dict(file.path)
        prefix = "first_stage_model."
        if any(key.startswith(prefix) for key in weights):
            weights = {
                k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)
            }
        try:
            module = load_vae(weights, beside.scale_factor, self.precision.vae)
        except ModelUnusable as error:
            raise ModelUnusable(f"{file.path.name}: {error}") from error
        if module.config["latent_channels"] != beside.latent_channels:
            raise ModelUnusable(f"{file.path.name}: a VAE for another kind of model")
        return LoadedVAE(module)
