"""Network files of random weights for tiny models, and what merging them must give."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdapi.engine.checkpoints.checkpoint import Components, load_checkpoint
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.networks.network_file import LoadedNetwork, read_network
from sdapi.engine.networks.selection import LoraUse
from sdapi.engine.weights.model_file import ModelFile
from tests.models.builders import FEW_WORDS, Built, build_sd1, build_sd2, build_sdxl

BUILDERS = {"sd1": build_sd1, "sd2": build_sd2, "sdxl": build_sdxl}
RANK = 3
_LAYERS = (nn.Linear, nn.Conv2d)


@dataclass(frozen=True, slots=True)
class Tiny:
    """A tiny checkpoint, loaded, and what it was built from."""

    built: Built
    components: Components

    @property
    def original_names(self) -> dict[str, str]:
        """Modules of the UNet -> their names in the original layout, by the builder's own rules."""
        prefix = "model.diffusion_model."
        theirs = [key.removeprefix(prefix) for key in self.built.state if key.startswith(prefix)]
        pairs = zip(self.built.unet.state_dict(), theirs, strict=True)
        return {a.rpartition(".")[0]: b.rpartition(".")[0] for a, b in pairs}


def make_tiny(family: str, folder: Path) -> Tiny:
    """Build, write and load a tiny checkpoint of a family."""
    built = BUILDERS[family](words=FEW_WORDS)
    path = built.write(folder / f"{family}.safetensors")
    return Tiny(built, load_checkpoint(path, None, Precision(torch.float32, torch.float32)))


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Its linear layers and convolutions by path."""
    return {path: m for path, m in model.named_modules() if isinstance(m, _LAYERS)}


def weights_of(components: Components) -> dict[str, Tensor]:
    """A copy of every tensor that networks may touch."""
    models = {"unet": components.unet} | {
        f"te{number}": encoder.model for number, encoder in enumerate(components.text_encoders)
    }
    return {
        f"{name}.{key}": tensor.clone()
        for name, model in models.items()
        for key, tensor in model.state_dict().items()
    }


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors are the same, bit for bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def low_rank(weight: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random `down` and `up` for a weight; of a convolution `down` has the kernel."""
    down = torch.randn(RANK, *weight.shape[1:], generator=generator) * 0.1
    up = torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=generator) * 0.1
    return down, up


def kohya_lora(tiny: Tiny, *, seed: int = 0, text: bool = True) -> dict[str, Tensor]:
    """A LoRA for every layer of a checkpoint, as kohya's programs name them."""
    return dict(_kohya(tiny, torch.Generator().manual_seed(seed), text=text))


def _kohya(tiny: Tiny, generator: torch.Generator, *, text: bool) -> Iterator[tuple[str, Tensor]]:
    parts = [("lora_unet_", tiny.components.unet)]
    encoders = tiny.components.text_encoders if text else ()
    for number, encoder in enumerate(encoders):
        label = f"te{number + 1}" if len(encoders) > 1 else "te"
        parts.append((f"lora_{label}_text_model_", encoder.model))
    for prefix, model in parts:
        for path, module in layers_of(model).items():
            down, up = low_rank(module.weight, generator)
            name = prefix + path.removeprefix("text_model.").replace(".", "_")
            yield f"{name}.lora_down.weight", down
            yield f"{name}.lora_up.weight", up
            yield f"{name}.alpha", torch.tensor(2.0)


def write_network(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """A network file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def use_of(path: Path, te: float = 1.0, unet: float = 1.0, dyn: int | None = None) -> LoraUse:
    """A file as a tag of its name uses it."""
    return LoraUse(path.stem, ModelFile.of(path), te, unet, dyn)


def loaded(
    path: Path, te: float = 1.0, unet: float = 1.0, dyn: int | None = None
) -> tuple[LoraUse, LoadedNetwork]:
    """A file read, with its use."""
    return use_of(path, te, unet, dyn), read_network(path)
