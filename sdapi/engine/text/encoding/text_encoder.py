"""CLIP text encoders as one class: OpenAI (SD1, SDXL's first) and OpenCLIP (SD2, SDXL's second)."""

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from sdapi.engine.text.chunks import END, START
from sdapi.engine.weights.assigning import assign
from sdapi.engine.weights.state_dict import StateDict
from sdapi.errors import ModelUnusable

#: Width of one attention head in every published text encoder.
HEAD_WIDTH = 64
_IGNORED = re.compile(r"(^|\.)(position_ids|logit_scale|attn_mask)$")
_RESBLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_OPENCLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OPENCLIP_TOP = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


@dataclass(frozen=True, slots=True)
class TextStates:
    """What one pass over tokens [B, 77] gives."""

    #: embeddings and every layer's output, each [B, 77, C], before the final norm
    hidden: tuple[Tensor, ...]
    #: the projected end-token vector [B, P], None without a projection
    pooled: Tensor | None


@dataclass(frozen=True, slots=True)
class Replaced:
    """Vectors [N, C] that stand for the tokens of `row` from `offset` on."""

    row: int
    offset: int
    vectors: Tensor


@dataclass(slots=True)
class TextEncoder:
    """A text model with what the checkpoint's family adds to it."""

    model: CLIPTextModel
    #: [C, P], applied to the end token's normed state
    projection: Tensor | None
    #: OpenCLIP pads with zeros, OpenAI's CLIP with the end token
    pad_token: int

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    def final_norm(self, states: Tensor) -> Tensor:
        """The layer norm that follows the last layer."""
        norm = self.model.final_layer_norm
        return norm(states)

    def encode(
        self,
        tokens: Tensor,
        replaced: Sequence[Replaced] = (),
        attention_mask: Tensor | None = None,
    ) -> TextStates:
        """Run the text model over `tokens` [B, 77], some of them replaced by vectors.

        What `attention_mask` has as 0 is not seen.
        """
        tokens = tokens.to(self.model.device)
        with _replacing(self.model.embeddings.token_embedding, replaced):
            output = self.model(
                input_ids=tokens, attention_mask=attention_mask, output_hidden_states=True
            )
        pooled = None
        if self.projection is not None:
            normed = self.final_norm(output.hidden_states[-1])
            # An offloaded model has come to its device only with the call.
            tokens = tokens.to(normed.device)
            end = (tokens == END).int().argmax(dim=-1)
            rows = torch.arange(len(tokens), device=tokens.device)
            pooled = normed[rows, end] @ self.projection.to(normed.device)
        return TextStates(tuple(output.hidden_states), pooled)


@contextmanager
def _replacing(table: torch.nn.Module, replaced: Sequence[Replaced]) -> Generator[None]:
    """Let the token table answer with other vectors in some places."""
    if not replaced:
        yield
        return

    def put(_: torch.nn.Module, __: object, looked_up: Tensor) -> Tensor:
        looked_up = looked_up.clone()
        for each in replaced:
            end = each.offset + len(each.vectors)
            looked_up[each.row, each.offset : end] = each.vectors.to(looked_up)
        return looked_up

    hook = table.register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()


def load_text_encoder(
    weights: StateDict, overrides: Mapping[str, Any], dtype: torch.dtype
) -> TextEncoder:
    """Build a text encoder from its weights, whose keys carry no prefix of the checkpoint any more.

    `overrides` are entries of a CLIP text configuration (a sidecar's `text_config`) that win over
    what the weights tell. Raises `ModelUnusable` for missing or left-over weights.
    """
    is_openclip = "positional_embedding" in weights
    projection = weights.get("text_projection") if is_openclip else None
    tensors = _from_openclip(weights) if is_openclip else _from_openai(weights)
    config = _config(tensors, "gelu" if is_openclip else "quick_gelu", overrides)
    with init_empty_weights(include_buffers=False):
        model = CLIPTextModel(config)
    assign(model, tensors, "the text encoder", dtype)
    return TextEncoder(
        model,
        None if projection is None else projection.to(dtype),
        pad_token=0 if is_openclip else END,
    )


def _config(tensors: StateDict, activation: str, overrides: Mapping[str, Any]) -> CLIPTextConfig:
    try:
        table = tensors["embeddings.token_embedding.weight"]
        positions = tensors["embeddings.position_embedding.weight"].shape[0]
        intermediate = tensors["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise ModelUnusable(f"the text encoder has no {error}") from error
    layers = sum(1 for k in tensors if re.fullmatch(r"encoder\.layers\.\d+\.mlp\.fc1\.weight", k))
    inferred: dict[str, Any] = {
        "vocab_size": table.shape[0],
        "hidden_size": table.shape[1],
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": max(table.shape[1] // HEAD_WIDTH, 1),
        "max_position_embeddings": positions,
        "hidden_act": activation,
        "bos_token_id": START,
        "eos_token_id": END,
    }
    return CLIPTextConfig(**(inferred | dict(overrides)))


def _from_openai(weights: StateDict) -> StateDict:
    """Strip the wrapper that old and new files put around the same names."""
    return {
        key.removeprefix("transformer.").removeprefix("text_model."): tensor
        for key, tensor in weights.items()
        if not _IGNORED.search(key) and key != "text_projection.weight"
    }


def _from_openclip(weights: StateDict) -> StateDict:
    tensors: StateDict = {}
    for key, tensor in weights.items():
        if key in _OPENCLIP_TOP:
            tensors[_OPENCLIP_TOP[key]] = tensor
        elif match := _RESBLOCK.fullmatch(key):
            tensors |= _openclip_layer(f"encoder.layers.{match[1]}", match[2], tensor)
        elif not _IGNORED.search(key) and key != "text_projection":
            tensors[key] = tensor  # unknown: `assign` reports it by its own name
    return tensors


def _openclip_layer(layer: str, name: str, tensor: Tensor) -> StateDict:
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        leaf = name.rsplit("_", 1)[1]
        parts: Sequence[Tensor] = tensor.chunk(3)
        return {f"{layer}.self_attn.{p}_proj.{leaf}": t for p, t in zip("qkv", parts, strict=True)}
    module, leaf = name.rsplit(".", 1)
    return {f"{layer}.{_OPENCLIP_LAYER.get(module, module)}.{leaf}": tensor}
