"""The demo model's checkpoint: laid out like an original Stable Diffusion 1 file."""

import json
from pathlib import Path

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from tools.demo_model.export import checkpoint_weights, sidecar  # noqa: E402
from tools.demo_model.networks import models  # noqa: E402  torch packages may be missing
from tools.demo_model.networks.checkpoint import load_checkpoint  # noqa: E402
from tools.demo_model.networks.ldm_names import ldm_text_encoder, ldm_unet, ldm_vae  # noqa: E402

SD1_LAYOUT = Path(__file__).parent / "sd1_layout.json"  # names and shapes of a small SD 1 file
ATTENDING = "CrossAttnDownBlock2D"


def test_names_and_shapes_are_those_of_an_original_file():
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(
            in_channels=4,
            out_channels=4,
            down_block_types=(ATTENDING, ATTENDING, ATTENDING, "DownBlock2D"),
            up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
            block_out_channels=(32, 64, 64, 64),
            cross_attention_dim=64,
        )
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32,) * 4,
            layers_per_block=2,
        )
        text_encoder = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                hidden_size=64, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4
            )
        )

    parts = {
        **dict(ldm_unet(unet.state_dict(), 2)),
        **dict(ldm_vae(vae.state_dict(), 4)),
        **dict(ldm_text_encoder(text_encoder.state_dict())),
    }

    layout = {name: list(weight.shape) for name, weight in parts.items()}
    assert layout == json.loads(SD1_LAYOUT.read_text())


def test_checkpoint_is_small_and_reads_back(tmp_path: Path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    networks, vae = models.make_networks(), models.make_vae()
    path = tmp_path / "demo.safetensors"
    save_file(checkpoint_weights(networks, vae), path)

    read, read_vae = load_checkpoint(path)

    assert path.stat().st_size < 40_000_000
    for before, after in ((networks, read), (vae, read_vae)):
        wanted = before.state_dict()
        for name, weight in after.state_dict().items():
            assert torch.equal(weight, wanted[name].half().float()), name


def test_sidecar_describes_the_networks():
    parameters = sidecar()["model"]["params"]
    unet, text = parameters["unet_config"]["params"], parameters["cond_stage_config"]["params"]

    widths = [unet["model_channels"] * mult for mult in unet["channel_mult"]]
    assert widths == list(models.UNET_WIDTHS)
    assert unet["context_dim"] == models.TEXT_WIDTH
    assert models.TEXT_WIDTH % text["text_config"]["num_attention_heads"] == 0
    assert parameters["scale_factor"] == models.SCALE_FACTOR
