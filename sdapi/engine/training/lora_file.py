"""A trained LoRA as kohya's programs write it: what every web UI, diffusers and peft read."""

import json
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.training.adapters import AdapterLayer
from sdapi.engine.training.job import LoraShape, TrainingJob
from sdapi.errors import NanProduced

_BASE_VERSIONS = {Family.SD1: "sd_v1", Family.SD2: "sd_v2", Family.SDXL: "sdxl_base_v1-0"}
_ARCHITECTURES = {
    Family.SD1: "stable-diffusion-v1/lora",
    Family.SD2: "stable-diffusion-v2/lora",
    Family.SDXL: "stable-diffusion-xl-v1-base/lora",
}


def write_lora(path: Path, layers: Iterable[AdapterLayer], metadata: Mapping[str, str]) -> None:
    """Write the layers in float16, whole or not at all; raises `NanProduced`."""
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        tensors[f"{layer.name}.lora_down.weight"] = _half(layer.down)
        tensors[f"{layer.name}.lora_up.weight"] = _half(layer.up)
        tensors[f"{layer.name}.alpha"] = torch.tensor(layer.alpha, dtype=torch.float16)
    if broken := next((k for k, v in tensors.items() if not v.isfinite().all()), None):
        raise NanProduced(f"training made {broken} something that is no number")
    draft = path.with_suffix(".draft")
    content = save(tensors)
    told = {**metadata, "sshs_model_hash": _hash_of_tensors(content)}
    with draft.open("wb") as file:
        file.write(save(tensors, metadata=told))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def training_metadata(job: TrainingJob, family: Family, step: int) -> dict[str, str]:
    """What kohya's programs tell of a training, as far as it has a meaning here."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(job.shape.rank),
        "ss_network_alpha": f"{job.shape.alpha:g}",
        "ss_base_model_version": _BASE_VERSIONS[family],
        "ss_sd_model_name": job.checkpoint.path.name,
        "ss_v2": str(family is Family.SD2),
        "ss_steps": str(step),
        "ss_max_train_steps": str(job.steps),
        "ss_num_train_images": str(len(job.pictures)),
        "ss_learning_rate": f"{job.learning_rate:g}",
        "ss_unet_lr": f"{job.learning_rate:g}",
        "ss_text_encoder_lr": f"{job.text_learning_rate:g}" if job.shape.has_text else "None",
        "ss_resolution": f"({job.resolution}, {job.resolution})",
        "ss_seed": str(job.seed),
        "ss_optimizer": "torch.optim.AdamW",
        **_network_args(job.shape),
        "modelspec.architecture": _ARCHITECTURES[family],
        "modelspec.resolution": f"{job.resolution}x{job.resolution}",
        "modelspec.sai_model_spec": "1.0.0",
        **job.metadata,
    }


def _network_args(shape: LoraShape) -> dict[str, str]:
    if not shape.has_convolutions:
        return {}
    told = {"conv_dim": str(shape.rank), "conv_alpha": f"{shape.alpha:g}"}
    return {"ss_network_args": json.dumps(told)}


def _hash_of_tensors(content: bytes) -> str:
    """The sha256 by which web UIs know a LoRA: of the file without its header."""
    header = int.from_bytes(content[:8], "little")
    return sha256(memoryview(content)[8 + header :]).hexdigest()


def _half(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float16).contiguous()
