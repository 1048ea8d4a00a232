import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import Components, load_checkpoint
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.jobs.job import Job, ModelFile
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.text.cond import Cond
from sdapi.engine.text.conditioning import Conditioner
from sdapi.engine.text.grammar.schedule import Timeline
from sdapi.engine.text.text_options import TextOptions
from sdapi.errors import ModelUnusable
from tests.engines import cpu_engine, tiny_job
from tests.models.builders import (
    FEW_WORDS,
    Built,
    add_training_leftovers,
    build_sd1,
    build_sd2,
    build_sdxl,
    write_diffusers_folder,
    write_v_sidecar,
)

FP32 = Precision(torch.float32, torch.float32)
TOLERANCE = 1e-4


def load(path: Path, sidecar: Path | None = None) -> Components:
    return load_checkpoint(path, sidecar, FP32)


def gap(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


def tokens(count: int = 2) -> Tensor:
    """Texts of different lengths, framed and padded as SD1 does."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(300, 40_000, (count, 77), generator=generator)
    ids[:, 0] = 49406
    for row in range(count):
        ids[row, 5 + 9 * row :] = 49407
    return ids


@torch.inference_mode()
def assert_draws_like(built: Built, loaded: Components) -> None:
    """UNet and VAE give what the models give that the file was made from."""
    generator = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x = randn(2, int(built.unet.config["in_channels"]), 16, 16)
    states = randn(2, 77, int(built.unet.config["cross_attention_dim"]))
    added = None
    if built.unet.config["addition_embed_type"]:
        sizes = torch.tensor([[512.0, 512, 0, 0, 512, 512], [256, 128, 8, 0, 256, 128]])
        added = {"text_embeds": randn(2, 128), "time_ids": sizes}
    t = torch.tensor([900.0, 31.5])
    ours, theirs = (
        unet(x, t, encoder_hidden_states=states, added_cond_kwargs=added, return_dict=False)[0]
        for unet in (loaded.unet, built.unet)
    )
    assert gap(ours, theirs) < TOLERANCE
    latent = randn(1, 4, 8, 8)
    assert gap(loaded.vae.decode(latent).sample, built.vae.decode(latent).sample) < TOLERANCE
    pixels = randn(1, 3, 64, 64).clamp(-1, 1)
    mine, other = (vae.encode(pixels).latent_dist for vae in (loaded.vae, built.vae))
    assert gap(mine.mean, other.mean) < TOLERANCE
    assert gap(mine.std, other.std) < TOLERANCE


@torch.inference_mode()
def assert_reads_like(built: Built, loaded: Components) -> None:
    """Every text encoder gives the states, and the pooled vector, of its model."""
    assert len(loaded.text_encoders) == len(built.text)
    for encoder, model in zip(loaded.text_encoders, built.text, strict=True):
        ours = encoder.encode(tokens())
        theirs = model(input_ids=tokens(), output_hidden_states=True)
        for one, other in zip(ours.hidden, theirs.hidden_states, strict=True):
            assert gap(one, other) < TOLERANCE
        assert gap(encoder.final_norm(ours.hidden[-1]), theirs.last_hidden_state) < TOLERANCE
        if ours.pooled is not None:
            assert gap(ours.pooled, theirs.text_embeds) < TOLERANCE


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_sd1_file_gives_what_its_parts_give(tmp_path: Path, dtype: torch.dtype, suffix: str):
    words = FEW_WORDS if suffix == "ckpt" else 49_408
    built = build_sd1(dtype=dtype, words=words)
    loaded = load(built.write(tmp_path / f"sd1.{suffix}"))
    assert loaded.family is Family.SD1
    assert not loaded.v_prediction
    assert not loaded.is_inpainting
    assert loaded.unet.dtype == torch.float32
    assert_draws_like(built, loaded)
    if words > FEW_WORDS:
        assert_reads_like(built, loaded)


def test_averaged_weights_and_leftovers_of_training_are_dropped(tmp_path: Path):
    built = add_training_leftovers(build_sd1(words=FEW_WORDS))
    assert_draws_like(built, load(built.write(tmp_path / "trained.ckpt")))


def test_sd1_inpainting_file_takes_nine_channels(tmp_path: Path):
    built = build_sd1(in_channels=9, words=FEW_WORDS)
    loaded = load(built.write(tmp_path / "inpainting.safetensors"))
    assert loaded.is_inpainting
    assert_draws_like(built, loaded)


def test_sd2_file_gives_what_its_parts_give(tmp_path: Path):
    built = build_sd2()
    loaded = load(built.write(tmp_path / "sd2.safetensors"))
    assert loaded.family is Family.SD2
    assert not loaded.v_prediction
    assert_draws_like(built, loaded)
    assert_reads_like(built, loaded)


def test_sd2_text_is_padded_with_zeros_and_read_before_the_last_layer(tmp_path: Path):
    built = build_sd2()
    loaded = load(built.write(tmp_path / "sd2.safetensors"))
    with torch.inference_mode():
        batch = Conditioner(loaded).batch(["a cat"], [""], Timeline(1), TextOptions())
        cross = batch.positive[0][0].schedule.at(0).cross
        ids = torch.tensor([[49406, 320, 2368, 49407, *[0] * 73]])
        states = built.text[0](input_ids=ids, output_hidden_states=True).hidden_states[-2]
        expected = loaded.text_encoders[0].final_norm(states)[0]
    assert gap(cross, expected) < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_trial_tells_an_sd2_file_that_predicts_v(tmp_path: Path, dtype: torch.dtype):
    built = build_sd2(words=FEW_WORDS, looks_like_v=True, dtype=dtype)
    assert load(built.write(tmp_path / "sd2v.safetensors")).v_prediction


@pytest.mark.parametrize(("said", "expected"), [("v", True), ("eps", False)])
def test_a_sidecar_says_what_the_unet_predicts_and_wins(tmp_path: Path, said: str, expected: bool):
    built = build_sd2(words=FEW_WORDS, looks_like_v=not expected)
    path = built.write(tmp_path / "sd2.safetensors")
    assert load(path, write_v_sidecar(path, said)).v_prediction is expected


def test_a_marker_in_the_file_says_that_it_predicts_v(tmp_path: Path):
    built = build_sd1(words=FEW_WORDS)
    built.state["v_pred"] = torch.tensor([])
    assert load(built.write(tmp_path / "marked.ckpt")).v_prediction


def test_sdxl_file_gives_what_its_parts_give(tmp_path: Path):
    built = build_sdxl()
    loaded = load(built.write(tmp_path / "sdxl.safetensors"))
    assert loaded.family is Family.SDXL
    assert loaded.scale_factor == 0.13025
    assert_draws_like(built, loaded)
    assert_reads_like(built, loaded)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Components:
    return load(build_sdxl().write(tmp_path_factory.mktemp("sdxl") / "sdxl.safetensors"))


def encode(loaded: Components, positive: str, negative: str) -> tuple[Cond, Cond]:
    options = TextOptions(size=(96, 160), crop=(8, 4))
    with torch.inference_mode():
        batch = Conditioner(loaded).batch([positive], [negative], Timeline(1), options)
    return batch.positive[0][0].schedule.at(0), batch.negative[0].at(0)


def test_sdxl_takes_zeros_for_an_empty_negative_prompt(sdxl: Components):
    positive, negative = encode(sdxl, "", "")
    assert not negative.cross.any()
    assert not negative.pooled.any()
    assert positive.cross.any()


def test_sdxl_encodes_a_written_negative_prompt(sdxl: Components):
    assert encode(sdxl, "cat", "dog")[1].cross.any()


def test_sdxl_pools_the_first_chunk_only(sdxl: Components):
    one, _ = encode(sdxl, "a cat", "")
    two, _ = encode(sdxl, "a cat BREAK a dog", "")
    assert two.cross.shape == (154, 192)
    assert gap(one.pooled, two.pooled) < 1e-6


def test_sdxl_is_told_original_size_crop_and_target_size(sdxl: Components):
    positive, _ = encode(sdxl, "a cat", "")
    assert positive.sizes.tolist() == [96, 160, 8, 4, 96, 160]


def test_sdxl_takes_the_states_before_the_last_layers_unnormed(sdxl: Components):
    positive, _ = encode(sdxl, "cat", "")
    ids = torch.tensor([[49406, 2368, *[49407] * 75]])
    zeros = torch.tensor([[49406, 2368, 49407, *[0] * 74]])
    with torch.inference_mode():
        first, second = sdxl.text_encoders
        parts = first.encode(ids).hidden[-2], second.encode(zeros).hidden[-2]
    assert gap(positive.cross, torch.cat(parts, dim=-1)[0]) < TOLERANCE


def test_diffusers_folder_gives_what_its_parts_give(tmp_path: Path):
    built = build_sd1()
    loaded = load(write_diffusers_folder(built, tmp_path / "folder"))
    assert loaded.family is Family.SD1
    assert_draws_like(built, loaded)
    assert_reads_like(built, loaded)


def test_diffusers_folder_of_sdxl_gives_what_its_parts_give(tmp_path: Path):
    built = build_sdxl()
    loaded = load(write_diffusers_folder(built, tmp_path / "folder", is_sdxl=True))
    assert loaded.family is Family.SDXL
    assert_draws_like(built, loaded)
    assert_reads_like(built, loaded)


def test_diffusers_folder_says_that_it_predicts_v(tmp_path: Path):
    folder = write_diffusers_folder(
        build_sd1(words=FEW_WORDS), tmp_path / "folder", prediction="v_prediction"
    )
    assert load(folder).v_prediction


class Bomb:
    """A pickle of this runs a command when it is read without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def unexplained_key(path: Path) -> Path:
    built = build_sd1(words=FEW_WORDS)
    built.state["some.other.weight"] = torch.zeros(3)
    return built.write(path / "unexplained.safetensors")


def unexplained_unet_key(path: Path) -> Path:
    built = build_sd1(words=FEW_WORDS)
    built.state["model.diffusion_model.adapter.weight"] = torch.zeros(3)
    return built.write(path / "adapter.safetensors")


def missing_key(path: Path) -> Path:
    built = build_sd1(words=FEW_WORDS)
    del built.state["model.diffusion_model.out.0.weight"]
    return built.write(path / "missing.safetensors")


def wrong_shape(path: Path) -> Path:
    built = build_sd1(words=FEW_WORDS)
    key = "model.diffusion_model.middle_block.0.in_layers.2.bias"
    built.state[key] = torch.zeros(5)
    return built.write(path / "shape.safetensors")


def truncated(path: Path) -> Path:
    whole = build_sd1(words=FEW_WORDS).write(path / "truncated.safetensors")
    whole.write_bytes(whole.read_bytes()[:100_000])
    return whole


def truncated_pickle(path: Path) -> Path:
    whole = build_sd1(words=FEW_WORDS).write(path / "truncated.ckpt")
    whole.write_bytes(whole.read_bytes()[:100_000])
    return whole


def zero_bytes(path: Path) -> Path:
    (path / "zero.safetensors").write_bytes(b"")
    return path / "zero.safetensors"


def zero_bytes_pickle(path: Path) -> Path:
    (path / "zero.ckpt").write_bytes(b"")
    return path / "zero.ckpt"


def renamed_text(path: Path) -> Path:
    (path / "text.safetensors").write_text("<html>Not found</html>\n" * 99)
    return path / "text.safetensors"


def renamed_text_pickle(path: Path) -> Path:
    (path / "text.ckpt").write_text("<html>Not found</html>\n" * 99)
    return path / "text.ckpt"


def noise_pickle(path: Path) -> Path:
    (path / "noise.ckpt").write_bytes(b"\x80\2." * 99)
    return path / "noise.ckpt"


def pickle_with_code(path: Path) -> Path:
    torch.save({"state_dict": {"weight": Bomb(path / "exploded")}}, path / "code.ckpt")
    return path / "code.ckpt"


def plain_pickle_with_code(path: Path) -> Path:
    (path / "plain.ckpt").write_bytes(pickle.dumps(Bomb(path / "exploded"), protocol=2))
    return path / "plain.ckpt"


def foreign_model(path: Path) -> Path:
    built = build_sd1(words=FEW_WORDS)
    built.state["model.diffusion_model.x_embedder.proj.weight"] = torch.zeros(3)
    return built.write(path / "sd3.safetensors")


def vae_only(path: Path) -> Path:
    built = build_sd1(words=FEW_WORDS)
    built.state = {k: v for k, v in built.state.items() if k.startswith("first_stage_model.")}
    return built.write(path / "vae.safetensors")


def averaged_weights_only(path: Path) -> Path:
    built = add_training_leftovers(build_sd1(words=FEW_WORDS))
    kept = {k: v for k, v in built.state.items() if not k.startswith("model.diffusion_model.")}
    built.state = kept
    return built.write(path / "ema.safetensors")


def bad_sidecar(path: Path) -> Path:
    checkpoint = build_sd1(words=FEW_WORDS).write(path / "bad.safetensors")
    checkpoint.with_suffix(".yaml").write_text("model: [unclosed")
    return checkpoint


def folder_without_unet(path: Path) -> Path:
    folder = write_diffusers_folder(build_sd1(words=FEW_WORDS), path / "folder")
    (folder / "unet").rename(folder / "other")
    return folder


#: how to spoil a file, and what the error has to say
BROKEN: list[tuple[Callable[[Path], Path], str]] = [
    (unexplained_key, "some.other.weight"),
    (unexplained_unet_key, "adapter.weight"),
    (missing_key, "lacks 1 weights"),
    (wrong_shape, r"has shape \[5\], expected \[64\]"),
    (truncated, "not a whole safetensors file"),
    (truncated_pickle, "broken or not a PyTorch file"),
    (zero_bytes, "not a whole safetensors file"),
    (zero_bytes_pickle, "not a PyTorch file"),
    (renamed_text, "not a whole safetensors file"),
    (renamed_text_pickle, r"text\.ckpt: not a PyTorch file$"),
    (noise_pickle, r"noise\.ckpt: broken or not a PyTorch file$"),
    (pickle_with_code, "no plain weight file but holds posix.system; convert"),
    (plain_pickle_with_code, "no plain weight file but holds posix.system; convert"),
    (foreign_model, "Stable Diffusion 3"),
    (vae_only, "no text encoder"),
    (averaged_weights_only, "averaged"),
    (bad_sidecar, "no readable YAML"),
    (folder_without_unet, "the folder unet/ is missing"),
]


def ids(value: object) -> str | None:
    return value.__name__ if callable(value) else None


@pytest.mark.parametrize(("spoil", "reason"), BROKEN, ids=ids)
def test_broken_file_is_refused_with_its_name_and_the_reason(
    tmp_path: Path, spoil: Callable[[Path], Path], reason: str
):
    path = spoil(tmp_path)
    sidecar = path.with_suffix(".yaml")
    with pytest.raises(ModelUnusable, match=reason) as refused:
        load(path, sidecar if sidecar.is_file() else None)
    assert path.stem in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert "weights_only" not in str(refused.value)  # torch advises to load what may be an attack
    assert not (tmp_path / "exploded").exists()


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(ModelUnusable, match=r"gone\.safetensors: the file is gone"):
        load(tmp_path / "gone.safetensors")


def job(checkpoint: Path) -> Job:
    return tiny_job(ModelFile.of(checkpoint), seeds=(3,))


def test_model_in_memory_draws_the_same_after_files_that_failed_to_load(tmp_path: Path):
    engine = cpu_engine()
    good = job(build_sd1().write(tmp_path / "good.safetensors"))
    before = np.asarray(engine.run(good, Monitor()).images[0].image)
    spoils = (unexplained_key, truncated, renamed_text_pickle, pickle_with_code, vae_only)
    for number, spoil in enumerate(spoils):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(ModelUnusable):
            engine.run(job(spoil(folder)), Monitor())
        assert engine.has_loaded(good.checkpoint)
        after = np.asarray(engine.run(good, Monitor()).images[0].image)
        assert np.array_equal(before, after)
