"""The loss: how well the UNet tells the noise, or the velocity, of a noisy latent."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.text.chunks import split_chunks
from sdapi.engine.text.encoding.chunk_encoding import encode_chunks
from sdapi.engine.text.tokenizer import shared_tokenizer
from sdapi.engine.training.examples import Example


@dataclass(slots=True)
class Objective:
    """The loss of one checkpoint; texts that are not trained are encoded once."""

    components: Components
    device: torch.device
    #: pixels of a side
    resolution: int
    trains_text: bool
    _encoded: dict[str, tuple[Tensor, Tensor | None]] = field(
        default_factory=dict[str, tuple[Tensor, Tensor | None]]
    )

    def loss(self, example: Example) -> Tensor:
        """The mean squared error (Ho et al. 2020), or that of v (Salimans and Ho 2022), float32."""
        parts = self.components
        x, noise = example.latent.to(self.device), example.noise.to(self.device)
        kept = parts.alphas_cumprod[example.timestep].item()
        signal, spread = kept**0.5, (1.0 - kept) ** 0.5
        noisy = signal * x + spread * noise
        target = signal * noise - spread * x if parts.v_prediction else noise
        cross, pooled = self._texts(example.caption)
        predicted = parts.unet(
            noisy.to(parts.unet.dtype),
            torch.tensor([example.timestep], device=self.device),
            encoder_hidden_states=cross,
            added_cond_kwargs=None if pooled is None else self._added(example, pooled),
            return_dict=False,
        )[0]
        return F.mse_loss(predicted.float(), target)

    def _texts(self, caption: str) -> tuple[Tensor, Tensor | None]:
        """What conditions the UNet: [1, 77, C], and for SDXL [1, P]; of a long text the start."""
        if (found := self._encoded.get(caption)) is not None:
            return found
        chunk = split_chunks(caption, shared_tokenizer(), use_emphasis=False)[0]
        with torch.set_grad_enabled(self.trains_text):
            encoded = encode_chunks(self.components, [chunk])
        if not self.trains_text:
            self._encoded[caption] = encoded
        return encoded

    def _added(self, example: Example, pooled: Tensor) -> dict[str, Tensor]:
        """SDXL's size conditioning: (height, width) as it was, the cut, the size trained at."""
        sizes = (*example.size, *example.crop, self.resolution, self.resolution)
        return {"text_embeds": pooled, "time_ids": torch.tensor([sizes]).to(pooled)}
