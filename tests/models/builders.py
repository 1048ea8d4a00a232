"""Tiny checkpoints of random weights, written as files in the layouts that users have.

Models are made by diffusers and transformers, and their weights renamed to the original layout by
rules of their own (those of diffusers' `convert_diffusers_to_original_*` scripts), so that loading
them is checked against something other than the loader's tables.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

VOCABULARY = 49_408
#: enough for files that are loaded and never asked to encode a text
FEW_WORDS = 50
State = dict[str, Tensor]


@dataclass(slots=True)
class Built:
    """The parts a file was made from, and its content."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]
    state: State = field(default_factory=dict[str, Tensor])

    def write(self, path: Path) -> Path:
        """As `.safetensors`, or as a pickle under any other name."""
        state = {key: tensor.contiguous().clone() for key, tensor in self.state.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save({"state_dict": state, "global_step": 7}, path)
        return path


def build_sd1(
    *,
    in_channels: int = 4,
    words: int = VOCABULARY,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    blocks: int = 2,
) -> Built:
    """SD1's layout: eight heads, convolutions as projections, OpenAI's CLIP.

    The demo checkpoint has one block at each level, where all others have two.
    """
    torch.manual_seed(seed)
    unet = _unet(
        in_channels=in_channels, heads=8, context=64, channels=(32, 64), layers_per_block=blocks
    )
    text = CLIPTextModel(_text_config(64, "quick_gelu", words))
    built = Built(unet, _vae(), (text,))
    _round(built, dtype)
    built.state |= _with_prefix(
        "cond_stage_model.transformer.text_model.", dict(_openai_names(text))
    )
    positions = torch.arange(77).unsqueeze(0)
    built.state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = positions
    return _finish(built, dtype)


def build_sd2(
    *, words: int = VOCABULARY, dtype: torch.dtype = torch.float32, looks_like_v: bool = False
) -> Built:
    """SD2's layout: heads 64 wide, linear projections, OpenCLIP.

    `looks_like_v` makes the UNet's output so low that a trial takes it for a v-prediction model.
    """
    torch.manual_seed(2)
    unet = _unet(heads=(1, 2), context=128, channels=(64, 128), use_linear_projection=True)
    if looks_like_v:
        with torch.no_grad():
            unet.conv_out.bias.fill_(-5.0)
    text = CLIPTextModelWithProjection(_text_config(128, "gelu", words))
    built = Built(unet, _vae(), (text,))
    _round(built, dtype)
    built.state |= _with_prefix("cond_stage_model.model.", dict(_openclip_names(text)))
    return _finish(built, dtype)


def build_sdxl(*, words: int = VOCABULARY, dtype: torch.dtype = torch.float32) -> Built:
    """SDXL's layout: two text encoders, pooled text and sizes beside the time step."""
    torch.manual_seed(3)
    unet = _unet(
        heads=(1, 2),
        context=192,
        channels=(64, 128),
        use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2],
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + 128,
    )
    first = CLIPTextModel(_text_config(64, "quick_gelu", words))
    second = CLIPTextModelWithProjection(_text_config(128, "gelu", words))
    built = Built(unet, _vae(scaling_factor=0.13025), (first, second))
    _round(built, dtype)
    prefix = "conditioner.embedders.{}."
    built.state |= _with_prefix(
        prefix.format(0) + "transformer.text_model.", dict(_openai_names(first))
    )
    built.state |= _with_prefix(prefix.format(1) + "model.", dict(_openclip_names(second)))
    return _finish(built, dtype)


def add_training_leftovers(built: Built) -> Built:
    """What files saved by a training program hold besides, averaged weights included."""
    for key in list(built.state):
        if key.startswith("model.diffusion_model."):
            name = key.removeprefix("model.").replace(".", "")
            built.state[f"model_ema.{name}"] = torch.zeros_like(built.state[key])
    built.state |= {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(7),
        "betas": torch.rand(1000),
        "alphas_cumprod": torch.rand(1000),
        "alphas_cumprod_prev": torch.rand(1000),
        "sqrt_alphas_cumprod": torch.rand(1000),
        "log_one_minus_alphas_cumprod": torch.rand(1000),
        "posterior_variance": torch.rand(1000),
        "logvar": torch.rand(1000),
        "cond_stage_model.logit_scale": torch.tensor(4.6),
        "first_stage_model.loss.logvar": torch.tensor(0.0),
    }
    return built


def write_diffusers_folder(
    built: Built, folder: Path, *, prediction: str = "epsilon", is_sdxl: bool = False
) -> Path:
    """The folder that diffusers' `save_pretrained` makes."""
    built.unet.save_pretrained(folder / "unet")
    built.vae.save_pretrained(folder / "vae")
    for name, text in zip(("text_encoder", "text_encoder_2"), built.text, strict=False):
        text.save_pretrained(folder / name)
    parts = {"_class_name": "StableDiffusionPipeline"} | (
        {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]} if is_sdxl else {}
    )
    (folder / "model_index.json").write_text(json.dumps(parts))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({"beta_start": 0.00085, "beta_end": 0.012, "prediction_type": prediction})
    )
    return folder


def write_v_sidecar(checkpoint: Path, parameterization: str = "v") -> Path:
    """A `.yaml` beside a checkpoint that says what its UNet predicts."""
    sidecar = checkpoint.with_suffix(".yaml")
    sidecar.write_text(f"model:\n  params:\n    parameterization: {parameterization}\n")
    return sidecar


def _unet(**changes: object) -> UNet2DConditionModel:
    options: dict[str, object] = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    names = {
        "heads": "attention_head_dim",
        "context": "cross_attention_dim",
        "channels": "block_out_channels",
    }
    options |= {names.get(key, key): value for key, value in changes.items()}
    return UNet2DConditionModel(**options)


def _vae(scaling_factor: float = 0.18215) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=scaling_factor,
    )


def _text_config(width: int, activation: str, words: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=width // 64,
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=49406,
        eos_token_id=49407,
    )


def _round(built: Built, dtype: torch.dtype) -> None:
    """Stir every weight, so that none is a bare 0 or 1, and keep what the file's type can hold."""
    for module in (built.unet, built.vae, *built.text):
        module.eval().requires_grad_(False)
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.03)
            parameter.copy_(parameter.to(dtype))


def _finish(built: Built, dtype: torch.dtype) -> Built:
    built.state |= _with_prefix("model.diffusion_model.", dict(_unet_names(built.unet)))
    built.state |= _with_prefix("first_stage_model.", dict(_vae_names(built.vae)))
    built.state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in built.state.items()}
    return built


def _with_prefix(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def _replace_all(text: str, pairs: list[tuple[str, str]]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


_RESNET = [
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("time_emb_proj.", "emb_layers.1."),
    ("conv_shortcut.", "skip_connection."),
]
_TOP = [
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("add_embedding.linear_1.", "label_emb.0.0."),
    ("add_embedding.linear_2.", "label_emb.0.2."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
    ("conv_in.", "input_blocks.0.0."),
]


def _unet_names(unet: UNet2DConditionModel) -> Iterator[tuple[str, Tensor]]:
    has_attention = [kind.startswith("Cross") for kind in unet.config["up_block_types"]]
    pairs: list[tuple[str, str]] = []
    count = unet.config["layers_per_block"] + 1
    for level, attends in enumerate(has_attention):
        for index in range(count):
            up = f"output_blocks.{count * level + index}"
            pairs += [
                (f"up_blocks.{level}.resnets.{index}.", f"{up}.0."),
                (f"up_blocks.{level}.attentions.{index}.", f"{up}.1."),
            ]
        upsampler = f"output_blocks.{count * (level + 1) - 1}.{2 if attends else 1}."
        pairs.append((f"up_blocks.{level}.upsamplers.0.", upsampler))
    yield from encoder_names(unet.state_dict(), others=pairs)


def encoder_names(
    state: State, *, others: Sequence[tuple[str, str]] = ()
) -> Iterator[tuple[str, Tensor]]:
    """A UNet's weights under the original names; `others` renames what is not of its encoder."""
    levels = _numbered(state, "down_blocks.{}.resnets.0.conv1.weight")
    blocks = _numbered(state, "down_blocks.0.resnets.{}.conv1.weight")
    pairs = [
        ("mid_block.attentions.0.", "middle_block.1."),
        ("mid_block.resnets.0.", "middle_block.0."),
        ("mid_block.resnets.1.", "middle_block.2."),
        *others,
    ]
    for level in range(levels):
        for index in range(blocks):
            down = f"input_blocks.{(blocks + 1) * level + index + 1}"
            pairs += [
                (f"down_blocks.{level}.resnets.{index}.", f"{down}.0."),
                (f"down_blocks.{level}.attentions.{index}.", f"{down}.1."),
            ]
        downsampler = f"input_blocks.{(blocks + 1) * (level + 1)}.0.op."
        pairs.append((f"down_blocks.{level}.downsamplers.0.conv.", downsampler))
    for key, tensor in state.items():
        renamed = _replace_all(key, pairs)
        if renamed == key:
            renamed = _replace_all(key, _TOP)
        elif ".resnets." in key:
            renamed = _replace_all(renamed, _RESNET)
        yield renamed, tensor


def _numbered(state: State, pattern: str) -> int:
    """How many names there are from 0 on, the number put into the pattern."""
    return next(number for number in itertools.count() if pattern.format(number) not in state)


def _vae_names(vae: AutoencoderKL) -> Iterator[tuple[str, Tensor]]:
    levels = len(vae.config["block_out_channels"])
    pairs = [("conv_shortcut.", "nin_shortcut."), ("conv_norm_out.", "norm_out.")]
    pairs += [
        ("mid_block.attentions.0.", "mid.attn_1."),
        ("mid_block.resnets.0.", "mid.block_1."),
        ("mid_block.resnets.1.", "mid.block_2."),
    ]
    for level in range(levels):
        mirrored = levels - 1 - level
        pairs += [
            (f"down_blocks.{level}.downsamplers.0.", f"down.{level}.downsample."),
            (f"up_blocks.{level}.upsamplers.0.", f"up.{mirrored}.upsample."),
        ]
        for index in range(3):
            pairs += [
                (f"down_blocks.{level}.resnets.{index}.", f"down.{level}.block.{index}."),
                (f"up_blocks.{level}.resnets.{index}.", f"up.{mirrored}.block.{index}."),
            ]
    attention = [
        ("group_norm.", "norm."),
        ("to_q.", "q."),
        ("to_k.", "k."),
        ("to_v.", "v."),
        ("to_out.0.", "proj_out."),
    ]
    for key, tensor in vae.state_dict().items():
        renamed = _replace_all(key, pairs)
        if ".attentions." in key:
            renamed = _replace_all(renamed, attention)
            # The original attention is made of 1x1 convolutions.
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        yield renamed, tensor


def _openai_names(text: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in text.state_dict().items():
        if not key.endswith("position_ids"):
            yield key.removeprefix("text_model."), tensor


def _openclip_names(text: CLIPTextModelWithProjection) -> Iterator[tuple[str, Tensor]]:
    state = {k.removeprefix("text_model."): v for k, v in text.state_dict().items()}
    yield "text_projection", state.pop("text_projection.weight").T
    yield "logit_scale", torch.tensor(4.6)
    yield "positional_embedding", state.pop("embeddings.position_embedding.weight")
    yield "token_embedding.weight", state.pop("embeddings.token_embedding.weight")
    names = [
        ("encoder.layers.", "transformer.resblocks."),
        ("layer_norm1.", "ln_1."),
        ("layer_norm2.", "ln_2."),
        ("mlp.fc1.", "mlp.c_fc."),
        ("mlp.fc2.", "mlp.c_proj."),
        ("self_attn.out_proj.", "attn.out_proj."),
        ("final_layer_norm.", "ln_final."),
    ]
    for key, tensor in state.items():
        if "self_attn.q_proj." in key:
            parts = [state[key.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            layer, leaf = key.split("self_attn.q_proj.")
            yield _replace_all(layer, names) + f"attn.in_proj_{leaf}", torch.cat(parts)
        elif "k_proj." not in key and "v_proj." not in key and not key.endswith("position_ids"):
            yield _replace_all(key, names), tensor
