import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdapi import __version__
from sdapi.engine.jobs.init_images import InitImages
from sdapi.engine.jobs.job import Job, ModelFile, SamplingOptions
from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.options import Options
from sdapi.services.catalog.catalog import Checkpoint, VAEFile
from sdapi.services.generation.telling.generation_info import GenerationInfo

PICTURE = Image.new("RGB", (8, 8))


def info(options: dict[str, Any] | None = None, job: dict[str, Any] | None = None, **changes: Any):
    made = Job(
        id="a",
        prompts=("a cat",) * 2,
        negative_prompts=("dog",) * 2,
        seeds=(5, 6),
        subseeds=(8, 9),
        checkpoint=ModelFile(Path("one.safetensors")),
        sampler=find_sampler("Euler a"),
        scheduler="Automatic",
        steps=20,
        cfg_scale=7.0,
        width=512,
        height=384,
    )
    made = replace(made, **(job or {}))
    values: dict[str, Any] = {
        "job": made,
        "options": Options.defaults().overlay(options or {}),
        "checkpoint": Checkpoint(Path("one.safetensors"), "one.safetensors", None, "abc" * 20),
        "vae": None,
        "vae_hash": None,
        "styles": (),
        "style_prompts": (),
        "extra": {},
        "job_timestamp": "20260101000000",
        "is_inpainting_model": False,
        "subseed_strength": 0,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
    }
    return GenerationInfo(**(values | changes))


def test_plain_infotext_is_the_webuis():
    assert info().infotext(1) == (
        "a cat\nNegative prompt: dog\n"
        "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.0, Seed: 6, "
        f"Size: 512x384, Model hash: abcabcabca, Model: one, Version: sdapi {__version__}"
    )


@pytest.mark.parametrize(
    ("made", "part"),
    [
        (info(job={"subseed_strength": 0.4}), "Variation seed: 8, Variation seed strength: 0.4"),
        (info(job={"seed_resize_from": (64, 128)}), "Seed resize from: 64x128"),
        (info(job={"init": InitImages((PICTURE,), 0.6)}), "Denoising strength: 0.6"),
        (info(job={"options": SamplingOptions(clip_skip=2)}), "Clip skip: 2"),
        (info(job={"options": SamplingOptions(randn_source="NV")}), "RNG: NV"),
        (info(job={"options": SamplingOptions(eta_noise_seed_delta=31337)}), "ENSD: 31337"),
        (info(extra={"Schedule type": "Karras"}), "Schedule type: Karras, CFG"),
        (info(vae=VAEFile("k.pt", Path("k.pt")), vae_hash="12"), "VAE hash: 12, VAE: k.pt"),
        (info(is_inpainting_model=True), "Conditional mask weight: 1.0"),
        (info({"add_user_name_to_info": True}, user="ann"), "User: ann"),
    ],
)
def test_what_acted_is_told(made: GenerationInfo, part: str):
    assert part in made.infotext(0)


@pytest.mark.parametrize(
    ("option", "gone"),
    [
        ("add_model_hash_to_info", "Model hash"),
        ("add_model_name_to_info", "Model: "),
        ("add_version_to_infotext", "Version"),
    ],
)
def test_options_leave_entries_out(option: str, gone: str):
    assert gone not in info({option: False}).infotext(0)


def test_info_object_tells_every_picture():
    content = json.loads(info().to_json(["one", "two"], 1))
    assert content["all_seeds"] == [5, 6]
    assert content["infotexts"] == ["one", "two"]
    assert (content["seed"], content["subseed"], content["index_of_first_image"]) == (5, 8, 1)
    assert (content["sd_model_name"], content["sd_model_hash"]) == ("one", "abcabcabca")
