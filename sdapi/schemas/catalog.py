"""Listings: models, samplers, upscalers, scripts and the like."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Item(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class SamplerItem(_Item):
    """An element of `GET /sdapi/v1/samplers`."""

    name: str = Field(examples=["DPM++ 2M"])
    aliases: list[str] = Field(examples=[["k_dpmpp_2m"]])
    options: dict[str, str] = Field(
        description="What is special about it, all as texts", examples=[{"scheduler": "karras"}]
    )


class SchedulerItem(_Item):
    """An element of `GET /sdapi/v1/schedulers`."""

    name: str = Field(examples=["karras"])
    label: str = Field(examples=["Karras"])
    aliases: list[str] | None = None
    default_rho: float = Field(-1.0, description="-1: has none")
    need_inner_model: bool = Field(False, description="Computed from the model's own sigmas")


class UpscalerItem(_Item):
    """An element of `GET /sdapi/v1/upscalers`."""

    name: str = Field(examples=["R-ESRGAN 4x+"])
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float | None = Field(None, examples=[4.0])


class LatentUpscalerModeItem(_Item):
    """An element of `GET /sdapi/v1/latent-upscale-modes`."""

    name: str = Field(examples=["Latent (bicubic)"])


class SDModelItem(_Item):
    """An element of `GET /sdapi/v1/sd-models`."""

    title: str = Field(examples=["v1-5-pruned-emaonly.safetensors [6ce0161689]"])
    model_name: str = Field(examples=["v1-5-pruned-emaonly"])
    hash: str | None = Field(None, description="The sha256's first 10 characters, once known")
    sha256: str | None = None
    filename: str = Field(description="Absolute path")
    config: str | None = Field(None, description="Path of the .yaml beside it, if any")


class SDVaeItem(_Item):
    """An element of `GET /sdapi/v1/sd-vae`."""

    model_name: str = Field(examples=["vae-ft-mse-840000-ema-pruned.safetensors"])
    filename: str = Field(description="Absolute path")


class HypernetworkItem(_Item):
    """An element of `GET /sdapi/v1/hypernetworks`."""

    name: str
    path: str | None = None


class FaceRestorerItem(_Item):
    """An element of `GET /sdapi/v1/face-restorers`."""

    name: str = Field(examples=["CodeFormer"])
    cmd_dir: str | None = None


class RealesrganItem(_Item):
    """An element of `GET /sdapi/v1/realesrgan-models`."""

    name: str = Field(examples=["R-ESRGAN 4x+"])
    path: str | None = None
    scale: int | None = None


class PromptStyleItem(_Item):
    """An element of `GET /sdapi/v1/prompt-styles`."""

    name: str
    prompt: str | None = None
    negative_prompt: str | None = None


class EmbeddingItem(_Item):
    """A textual inversion embedding."""

    step: int | None = Field(None, description="Training steps, if the file tells")
    sd_checkpoint: str | None = Field(None, description="Hash of the checkpoint it was trained on")
    sd_checkpoint_name: str | None = None
    shape: int = Field(description="Width of a vector")
    vectors: int = Field(description="Tokens it takes in a prompt")


class EmbeddingsResponse(_Item):
    """`GET /sdapi/v1/embeddings`."""

    loaded: dict[str, EmbeddingItem]
    skipped: dict[str, EmbeddingItem] = Field(
        description="Those that do not fit the checkpoint in use"
    )


class LoraItem(_Item):
    """An element of `GET /sdapi/v1/loras`."""

    name: str = Field(description="File name without ending")
    alias: str
    path: str = Field(description="Absolute path")
    metadata: dict[str, Any]


class ScriptsList(_Item):
    """`GET /sdapi/v1/scripts`."""

    txt2img: list[str]
    img2img: list[str]


class ScriptArg(_Item):
    """An argument of a script."""

    label: str | None = None
    value: Any | None = None
    minimum: Any | None = None
    maximum: Any | None = None
    step: Any | None = None
    choices: list[str] | None = None


class ScriptInfo(_Item):
    """An element of `GET /sdapi/v1/script-info`."""

    name: str | None = None
    is_alwayson: bool | None = None
    is_img2img: bool | None = None
    args: list[ScriptArg]


class ExtensionItem(_Item):
    """An element of `GET /sdapi/v1/extensions`."""

    name: str
    remote: str
    branch: str
    commit_hash: str
    version: str
    commit_date: str
    enabled: bool
    error: str | None = Field(None, description="Why it is not in use")


class MemoryResponse(_Item):
    """`GET /sdapi/v1/memory`, in bytes."""

    ram: dict[str, Any]
    cuda: dict[str, Any]
