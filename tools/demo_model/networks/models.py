"""The three networks of the demo checkpoint: Stable Diffusion 1 with small widths."""

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

SCALE_FACTOR = 0.18215  # latents are normalised to this factor when the VAE is finished
LATENT_CHANNELS = 4
VAE_WIDTHS = (64, 64, 64, 128)  # 32 would make the last group norm forget a picture's mean
LAYERS = 1  # residual blocks per level, of VAE and UNet
UNET_WIDTHS = (64, 128, 192)
UNET_HEADS = 8
TEXT_WIDTH = 80
TEXT_LAYERS = 2
TEXT_HEADS = 5
TOKENS = 77


def make_vae() -> AutoencoderKL:
    """Four levels, eight-fold reduction, four latent channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(VAE_WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(VAE_WIDTHS),
        block_out_channels=VAE_WIDTHS,
        layers_per_block=LAYERS,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=32,
        sample_size=256,
        scaling_factor=SCALE_FACTOR,
    )


def make_text_encoder() -> CLIPTextModel:
    """CLIP's text tower with its full token table, so that the ordinary tokenizer fits."""
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS,
        max_position_embeddings=TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
    return CLIPTextModel(config)


def make_unet() -> UNet2DConditionModel:
    """Three levels; the finest has no attention, which keeps large sizes cheap."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=UNET_WIDTHS,
        layers_per_block=LAYERS,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=UNET_HEADS,  # diffusers' old name: this is the number of heads
        norm_num_groups=32,
    )


class Networks(nn.Module):
    """Text encoder and UNet, which are trained and averaged together."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet


def make_networks() -> Networks:
    """Both with fresh weights."""
    return Networks(make_text_encoder(), make_unet())
