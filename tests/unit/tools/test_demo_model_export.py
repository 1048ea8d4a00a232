"""The demo model's checkpoint: laid out like an original Stable Diffusion 1 file."""

import json
from pathlib import Path

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from tools.demo_model.export import (  # noqa: E402
    checkpoint_weights,
    export_checkpoint,
    export_control,
    sidecar,
)
from tools.demo_model.networks import models  # noqa: E402  torch packages may be missing
from tools.demo_model.networks.checkpoint import load_checkpoint, load_control  # noqa: E402
from tools.demo_model.networks.ldm_names import (  # noqa: E402
    kohya_lora,
    ldm_control,
    ldm_text_encoder,
    ldm_unet,
    ldm_vae,
)
from tools.demo_model.networks.pipeline import controlled  # noqa: E402
from tools.demo_model.unpack import unpack  # noqa: E402

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


def test_unpacked_checkpoint_exports_to_the_same_file(tmp_path: Path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    weights = checkpoint_weights(models.make_networks(), models.make_vae())
    save_file(weights, first, metadata={"format": "pt"})

    run = tmp_path / "run"
    unpack(first, run)
    (run / "start.ema.pt").rename(run / "diffusion256.ema.pt")
    export_checkpoint(run, 256, second)

    assert second.read_bytes() == first.read_bytes()
    with pytest.raises(FileExistsError, match="empty folder"):
        unpack(first, run)


def test_checkpoint_is_the_mean_of_the_run_and_another_file(tmp_path: Path):
    torch.manual_seed(0)
    one, other = (models.make_networks().state_dict() for _ in range(2))
    torch.save(one, tmp_path / "diffusion256.ema.pt")
    torch.save(models.make_vae().state_dict(), tmp_path / "vae.pt")
    torch.save(other, tmp_path / "other.ema.pt")
    target = tmp_path / "demo.safetensors"

    export_checkpoint(tmp_path, 256, target, mean_with=tmp_path / "other.ema.pt")

    read, _ = load_checkpoint(target)
    for name, weight in read.state_dict().items():
        middle = one[name] + (other[name] - one[name]) / 2
        torch.testing.assert_close(weight, middle, atol=1e-3, rtol=1e-3)
    before = target.read_bytes()
    with pytest.raises(ValueError, match="names differ"):
        export_checkpoint(tmp_path, 256, target, mean_with=tmp_path / "vae.pt")
    assert target.read_bytes() == before


def test_exported_control_reads_back_and_leads(tmp_path: Path):
    torch.manual_seed(0)
    unet = models.make_unet()
    control = diffusers.ControlNetModel.from_unet(unet)
    for block in control.controlnet_down_blocks:
        torch.nn.init.normal_(block.weight, std=0.1)  # zero before training
    torch.save(control.state_dict(), tmp_path / "control_canny256.ema.pt")

    export_control(tmp_path, 256, "canny", tmp_path / "canny.safetensors")
    read = load_control(tmp_path / "canny.safetensors")

    wanted = control.state_dict()
    for name, weight in read.state_dict().items():
        assert torch.equal(weight, wanted[name].half().float()), name
    shape, context = (1, 4, 8, 8), torch.randn(1, 77, models.TEXT_WIDTH)
    noisy, time = torch.randn(shape), torch.tensor([500])
    led = controlled(unet, read, noisy, time, context, torch.ones(1, 3, 64, 64))
    assert led.shape == shape
    assert not torch.allclose(led, unet(noisy, time, context).sample)


def test_sidecar_describes_the_networks():
    parameters = sidecar(256)["model"]["params"]
    unet, text = parameters["unet_config"]["params"], parameters["cond_stage_config"]["params"]

    widths = [unet["model_channels"] * mult for mult in unet["channel_mult"]]
    assert widths == list(models.UNET_WIDTHS)
    assert unet["context_dim"] == models.TEXT_WIDTH
    assert models.TEXT_WIDTH % text["text_config"]["num_attention_heads"] == 0
    assert parameters["scale_factor"] == models.SCALE_FACTOR


def test_control_names_are_those_of_an_original_file():
    control = diffusers.ControlNetModel.from_unet(models.make_unet())

    parts = dict(ldm_control(control.state_dict(), models.LAYERS))

    hints = {n.split(".")[2] for n in parts if n.startswith("control_model.input_hint_block.")}
    ways_out = {n.split(".")[2] for n in parts if n.startswith("control_model.zero_convs.")}
    assert len(parts) == len(control.state_dict())
    assert hints == {"0", "2", "4", "6", "8", "10", "12", "14"}
    assert ways_out == {"0", "1", "2", "3", "4", "5"}
    assert "control_model.middle_block_out.0.weight" in parts
    assert "control_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight" in parts
    assert "control_model.time_embed.0.weight" in parts


def test_low_rank_weights_are_named_for_every_loader():
    down, up = torch.zeros(4, 8), torch.zeros(8, 4)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"

    named = dict(
        kohya_lora({f"{name}.lora_A.default.weight": down, f"{name}.lora_B.default.weight": up})
    )

    start = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert named == {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up}
