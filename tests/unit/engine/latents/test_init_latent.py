"""Masks at the resolution of latents, and what a sampler finds under them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdapi.engine.checkpoints.checkpoint import Components, load_checkpoint
from sdapi.engine.checkpoints.precision import Precision
from sdapi.engine.jobs.init_images import InitImages, InpaintMask, MaskedContent, SoftInpainting
from sdapi.engine.jobs.job import Job, ModelFile, SamplingOptions
from sdapi.engine.latents.image_cond import image_conditioning
from sdapi.engine.latents.init_latent import encode_init, latent_mask
from sdapi.engine.sampling.denoising.blend import LinearBlend
from sdapi.engine.sampling.denoising.soft_inpainting import SoftBlend
from sdapi.engine.sampling.noise import NoiseSource
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.errors import ModelUnusable
from tests.models.builders import FEW_WORDS, build_sd1

CPU = torch.device("cpu")
FP32 = Precision(torch.float32, torch.float32)
SOURCE = NoiseSource("CPU", CPU)


def picture(size: tuple[int, int] = (64, 64), colour: str = "red") -> Image.Image:
    return Image.new("RGB", size, colour)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def half_mask(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """White on the right."""
    mask = Image.new("L", size)
    mask.paste(255, (size[0] // 2, 0, *size))
    return mask


@pytest.fixture(scope="module")
def inpaint(golden: Path) -> Components:
    models = golden / "models"
    return load_checkpoint(models / "tinyInpaint.safetensors", models / "tinyInpaint.yaml", FP32)


@pytest.fixture(scope="module")
def edit(tmp_path_factory: pytest.TempPathFactory) -> Components:
    path = tmp_path_factory.mktemp("edit") / "edit.safetensors"
    return load_checkpoint(build_sd1(in_channels=8, words=FEW_WORDS).write(path), None, FP32)


@pytest.fixture
def job() -> Job:
    return Job(
        id="a",
        prompts=("", ""),
        negative_prompts=("", ""),
        seeds=(7, 8),
        subseeds=(0, 1),
        checkpoint=ModelFile(Path("none")),
        sampler=find_sampler("Euler"),
        scheduler="Automatic",
        steps=1,
        cfg_scale=1.0,
        width=64,
        height=64,
        batch_size=2,
    )


def init(mask: InpaintMask | None = None, **changes: object) -> InitImages:
    return replace(InitImages((picture(),), 0.5, mask=mask), **changes)


def test_mask_is_rounded_at_the_resolution_of_latents_when_asked_to():
    grey = Image.new("L", (64, 64), 100)
    assert latent_mask(InpaintMask(grey), (8, 8)).unique().tolist() == [0.0]
    shades = latent_mask(InpaintMask(grey, rounds=False), (8, 8))
    assert shades.shape == (8, 8)
    assert torch.allclose(shades, torch.tensor(100 / 255))


def test_single_picture_serves_the_whole_batch(inpaint: Components, job: Job):
    found = encode_init(inpaint, job, init(), SOURCE, generator())
    assert found.latent.shape == (2, 4, 8, 8)
    assert found.blend is None


def test_size_that_is_no_multiple_of_eight_is_encoded_whole(inpaint: Components, job: Job):
    job = replace(job, width=70, height=67)
    found = encode_init(inpaint, job, init(images=(picture((70, 67)),)), SOURCE, generator())
    assert found.latent.shape == (2, 4, 8, 8)


@pytest.mark.parametrize("content", list(MaskedContent))
def test_masked_content_changes_what_is_under_the_mask_only(
    inpaint: Components, job: Job, content: MaskedContent
):
    plain = encode_init(inpaint, job, init(), SOURCE, generator()).latent
    found = encode_init(
        inpaint, job, init(InpaintMask(half_mask(), content=content)), SOURCE, generator()
    )
    assert torch.equal(found.latent[..., :4], plain[..., :4])
    right = found.latent[..., 4:]
    if content is MaskedContent.PICTURE:
        assert torch.equal(right, plain[..., 4:])
    elif content is MaskedContent.NOTHING:
        assert not right.any()
    else:
        drawn = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(8))
        assert torch.equal(right[1], drawn[..., 4:])


def test_noise_under_the_mask_is_the_seeds_own_whatever_the_variation(
    inpaint: Components, job: Job
):
    mask = init(InpaintMask(half_mask(), content=MaskedContent.NOISE))
    varied = replace(job, subseed_strength=0.5, seed_resize_from=(128, 128))
    assert torch.equal(
        encode_init(inpaint, job, mask, SOURCE, generator()).latent,
        encode_init(inpaint, varied, mask, SOURCE, generator()).latent,
    )


def test_blend_keeps_what_the_mask_leaves_black(inpaint: Components, job: Job):
    found = encode_init(inpaint, job, init(InpaintMask(half_mask())), SOURCE, generator())
    assert isinstance(found.blend, LinearBlend)
    blended = found.blend.during(torch.zeros_like(found.latent), 1.0)
    assert torch.equal(blended[..., :4], found.latent[..., :4])
    assert not blended[..., 4:].any()


def test_soft_inpainting_blends_in_its_own_way(inpaint: Components, job: Job):
    mask = InpaintMask(half_mask(), rounds=False, soft=SoftInpainting())
    assert isinstance(encode_init(inpaint, job, init(mask), SOURCE, generator()).blend, SoftBlend)


def test_inpainting_checkpoint_sees_the_mask_and_what_it_leaves(inpaint: Components, job: Job):
    masked = replace(job, init=init(InpaintMask(half_mask())))
    cond = image_conditioning(inpaint, masked, CPU, generator())
    assert cond is not None
    assert cond.shape == (2, 5, 8, 8)
    assert cond[0, 0].unique().tolist() == [0.0, 1.0]
    whole = image_conditioning(inpaint, replace(job, init=init()), CPU, generator())
    grey = image_conditioning(inpaint, job, CPU, generator())
    assert whole is not None
    assert torch.equal(whole, grey)


def test_mask_weight_of_zero_hides_nothing_from_an_inpainting_checkpoint(
    inpaint: Components, job: Job
):
    options = SamplingOptions(inpainting_mask_weight=0.0)
    masked = replace(job, init=init(InpaintMask(half_mask())), options=options)
    cond = image_conditioning(inpaint, masked, CPU, generator())
    plain = encode_init(inpaint, job, init(), SOURCE, generator()).latent
    assert cond is not None
    assert torch.allclose(cond[:, 1:], plain)


def test_conditioning_of_a_picture_that_keeps_its_size_fits_the_latent(
    inpaint: Components, job: Job
):
    own = init(InpaintMask(half_mask()), images=(picture((96, 40)),), latent_resize=True)
    cond = image_conditioning(inpaint, replace(job, init=own), CPU, generator())
    assert cond is not None
    assert cond.shape == (2, 5, 8, 8)


def test_editing_checkpoint_sees_the_most_likely_latents_unscaled(edit: Components, job: Job):
    cond = image_conditioning(edit, replace(job, init=init()), CPU, generator())
    assert cond is not None
    assert cond.shape == (2, 4, 8, 8)
    pixels = torch.from_numpy(np.asarray(picture(), np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        moments = edit.vae.encode(pixels).latent_dist.mean
    assert torch.allclose(cond[:1], moments, atol=1e-5)


def test_editing_checkpoint_without_a_picture_is_refused(edit: Components, job: Job):
    with pytest.raises(ModelUnusable, match="use img2img"):
        image_conditioning(edit, job, CPU, generator())
