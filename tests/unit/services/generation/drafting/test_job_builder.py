from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdapi.errors import (
    BadRequest,
    DefaultModelUnusable,
    ModelUnusable,
    NotBuilt,
    UnknownName,
    UnknownSampler,
)
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.catalog.catalog import Catalog
from sdapi.services.catalog.model_files.hashes import HashCache
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.services.catalog.styles import Styles
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.drafting.draft import Draft
from sdapi.services.generation.drafting.job_builder import JobBuilder
from sdapi.services.generation.eas import EASFields
from sdapi.services.generation.pictures.img2img import InitInputs
from sdapi.settings import Settings
from tests.fakes import no_models

PICTURE = Image.new("RGB", (64, 64))


@pytest.fixture
def builder(tmp_path: Path) -> JobBuilder:
    for name in ("Stable-diffusion/one.safetensors", "Stable-diffusion/two.ckpt", "VAE/kl.pt"):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "models" / "Lora").mkdir()
    (tmp_path / "models" / "Lora" / "there.safetensors").write_bytes(b"x")
    styles = tmp_path / "styles.csv"
    styles.write_text('name,prompt,negative_prompt\nart,"{prompt}, art",ugly\n')
    settings = Settings(data_dir=tmp_path)
    catalog = Catalog(settings, HashCache(tmp_path))
    networks = NetworkCatalog(settings, HashCache(tmp_path, "network_hashes"))
    return JobBuilder(catalog, Styles.load(styles), networks, Upscalers(settings), no_models)


def txt2img(
    builder: JobBuilder,
    options: dict[str, Any] | None = None,
    eas: EASFields | None = None,
    **body: Any,
) -> Draft:
    request = Txt2ImgRequest.model_validate(body)
    chosen = Options.defaults().overlay(options or {})
    return builder.build("task", request, chosen, eas or EASFields())


def img2img(builder: JobBuilder, images: tuple[Image.Image, ...] = (PICTURE,), **body: Any):
    request = Img2ImgRequest.model_validate(body)
    return builder.build("task", request, Options.defaults(), EASFields(), InitInputs(images))


def test_empty_request_is_the_webuis_defaults(builder: JobBuilder):
    job = txt2img(builder).job
    assert (job.width, job.height, job.steps, job.cfg_scale) == (512, 512, 50, 7.0)
    assert (job.batch_size, job.n_iter, job.prompts) == (1, 1, ("",))
    assert (job.sampler.name, job.scheduler) == ("Euler", "Automatic")
    assert job.checkpoint.path.name == "one.safetensors"


@pytest.mark.parametrize(
    "field",
    ["width", "height", "steps", "cfg_scale", "prompt", "negative_prompt", "batch_size", "n_iter"],
)
def test_null_where_it_has_no_meaning_is_refused_by_name(builder: JobBuilder, field: str):
    with pytest.raises(BadRequest, match=f"^{field}: null"):
        txt2img(builder, **{field: None})


@pytest.mark.parametrize(
    "field",
    ["seed", "subseed", "subseed_strength", "seed_resize_from_w", "styles", "eta", "s_tmax"],
)
def test_null_where_it_means_the_default_is_taken(builder: JobBuilder, field: str):
    assert txt2img(builder, **{field: None}).job.steps == 50


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("height", 7),
        ("width", -64),
        ("steps", 0),
        ("steps", -5),
        ("batch_size", 0),
        ("n_iter", -1),
        ("seed", 1 << 64),
        ("seed", -(1 << 63) - 1),
        ("subseed", 10**30),
        ("n_iter", 1001),
        ("width", 1 << 40),
    ],
)
def test_number_that_cannot_work_is_refused_by_name(builder: JobBuilder, field: str, value: int):
    with pytest.raises(BadRequest, match=field):
        txt2img(builder, **{field: value})


def test_seeds_count_up_over_all_pictures(builder: JobBuilder):
    job = txt2img(builder, seed=100, subseed=7, batch_size=2, n_iter=2).job
    assert job.seeds == (100, 101, 102, 103)
    assert job.subseeds == (7, 8, 9, 10)


def test_with_a_variation_only_subseeds_count_up(builder: JobBuilder):
    job = txt2img(builder, seed=100, subseed=7, batch_size=2, subseed_strength=0.5).job
    assert (job.seeds, job.subseeds) == ((100, 100), (7, 8))


@pytest.mark.parametrize("seed", [0, -2, 2**63, 2**64 - 1])
def test_seeds_of_64_bits_are_kept(builder: JobBuilder, seed: int):
    assert txt2img(builder, seed=seed).job.seeds == (seed,)


def test_random_seeds_differ_and_fit_into_32_bits(builder: JobBuilder):
    seeds = {txt2img(builder, seed=-1).job.seeds[0] for _ in range(20)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_unknown_names_are_refused_with_the_near_ones(builder: JobBuilder):
    with pytest.raises(UnknownSampler, match="Sampler not found"):
        txt2img(builder, sampler_name="Eulr")
    with pytest.raises(UnknownName, match="'Karras'"):
        txt2img(builder, scheduler="Karas")
    with pytest.raises(UnknownName, match=r"two\.ckpt"):
        txt2img(builder, eas=EASFields(sd_model_checkpoint="too.ckpt"))
    with pytest.raises(UnknownName, match=r"kl\.pt"):
        txt2img(builder, eas=EASFields(sd_vae="k.pt"))
    with pytest.raises(UnknownName, match=r"kl\.pt"):
        txt2img(builder, {"sd_vae": "k.pt"}, override_settings={"sd_vae": "k.pt"})


def test_unknown_checkpoint_in_override_settings_is_refused(builder: JobBuilder):
    with pytest.raises(UnknownName, match="'nowhere'"):
        txt2img(
            builder,
            {"sd_model_checkpoint": "nowhere"},
            override_settings={"sd_model_checkpoint": "nowhere"},
        )


def test_unknown_choice_of_an_option_is_refused_with_the_known_ones(builder: JobBuilder):
    with pytest.raises(BadRequest, match="randn_source: 'TPU'"):
        txt2img(builder, {"randn_source": "TPU"})
    with pytest.raises(BadRequest, match=r"emphasis: 'Loud'"):
        txt2img(builder, {"emphasis": "Loud"})


def test_option_that_is_still_to_come_is_named(builder: JobBuilder):
    with pytest.raises(NotBuilt, match="option use_old_emphasis_implementation"):
        txt2img(builder, {"use_old_emphasis_implementation": True})


def test_faces_are_restored_where_request_or_option_say_so(builder: JobBuilder):
    def name(options: dict[str, Any] | None = None, **body: Any) -> str | None:
        faces = txt2img(builder, options, **body).job.faces
        return faces and faces.name

    chosen = {"face_restoration": True, "face_restoration_model": "GFPGAN"}
    assert name() is None
    assert name(restore_faces=True) == "CodeFormer"
    assert name(chosen) == "GFPGAN"
    assert name(chosen, restore_faces=False) is None
    kept = txt2img(builder, chosen | {"save_images_before_face_restoration": True}).job
    assert kept.keeps_faces
    assert not kept.faces or kept.faces.weight == 0.5


def test_network_that_is_there_goes_with_the_job_and_a_missing_one_is_a_warning(
    builder: JobBuilder,
):
    draft = txt2img(builder, prompt="cat <lora:there:1> <lora:gone:1> <other:x>")
    assert draft.job.networks.loras["there"].path.name == "there.safetensors"
    assert draft.loras.keys() == {"there"}
    assert draft.warnings == ("lora not found: gone",)
    disabled = txt2img(builder, prompt="<lora:there:1> <lora:gone:1>", disable_extra_networks=True)
    assert (disabled.job.networks.loras, disabled.warnings) == ({}, ())


def test_missing_network_is_an_error_where_networks_are_strict(builder: JobBuilder):
    strict = {"sdapi_strict_networks": True}
    with pytest.raises(UnknownName, match="lora not found: thre; there are 'there'"):
        txt2img(builder, strict, prompt="cat <lora:thre:1>")
    with pytest.raises(BadRequest, match="the strength 'much' is no number"):
        txt2img(builder, strict, prompt="cat <lora:there:much>")


def test_strength_that_is_no_number_is_a_warning(builder: JobBuilder):
    draft = txt2img(builder, prompt="cat <lora:there:much>")
    assert draft.warnings == (
        "<lora:there>: the strength 'much' is no number that can be used; no LoRA was used",
    )


def test_default_networks_are_added_to_every_prompt_unless_it_names_them(builder: JobBuilder):
    options = {"sd_lora": "there"}
    assert txt2img(builder, options, prompt="cat").job.prompts == ("cat<lora:there:1.0>",)
    named = txt2img(builder, options, prompt="cat <lora:there:0.5>")
    assert named.job.prompts == ("cat <lora:there:0.5>",)
    assert txt2img(builder, {"sd_lora": "gone"}, prompt="cat").job.prompts == ("cat",)
    off = txt2img(builder, options, prompt="cat", disable_extra_networks=True)
    assert off.job.prompts == ("cat",)


def test_styles_and_comments_are_worked_into_the_prompts(builder: JobBuilder):
    job = txt2img(builder, prompt="cat # nice", negative_prompt="dog", styles=["art", "none"]).job
    assert job.prompts[0].startswith("cat")
    assert "nice" not in job.prompts[0]
    assert job.negative_prompts[0] == "dog, ugly"
    kept = txt2img(builder, {"enable_prompt_comments": False}, prompt="cat # nice").job
    assert kept.prompts == ("cat # nice",)


def test_img2img_keeps_strength_and_noise_multiplier(builder: JobBuilder):
    init = img2img(builder, denoising_strength=1.5, initial_noise_multiplier=0.9).job.init
    assert (init.denoising_strength, init.noise_multiplier) == (1.5, 0.9)
    assert txt2img(builder).job.init is None


def test_seed_resize_needs_both_sides(builder: JobBuilder):
    assert txt2img(builder, seed_resize_from_w=256).job.seed_resize_from is None
    both = txt2img(builder, seed_resize_from_w=256, seed_resize_from_h=128)
    assert both.job.seed_resize_from == (256, 128)


def test_eas_checkpoint_and_vae_are_for_this_job_only(builder: JobBuilder):
    eas = EASFields(sd_model_checkpoint="two", sd_vae="kl.pt")
    job = txt2img(builder, eas=eas).job
    assert (job.checkpoint.path.name, job.vae.path.name) == ("two.ckpt", "kl.pt")
    other = txt2img(builder, eas=replace(eas, sd_vae="None")).job
    assert other.vae is None
    assert txt2img(builder).job.checkpoint.path.name == "one.safetensors"


@pytest.mark.parametrize(
    ("options", "body", "is_default"),
    [
        ({}, {}, (True, None)),
        ({"sd_vae": "kl.pt", "sd_model_checkpoint": "two.ckpt"}, {}, (True, True)),
        ({"sd_vae": "kl.pt"}, {"sd_model_checkpoint": "two.ckpt"}, (False, True)),
        ({"sd_vae": "kl.pt"}, {"sd_vae": "Automatic"}, (True, None)),
        ({}, {"sd_vae": "kl.pt"}, (True, False)),
    ],
)
def test_a_model_that_the_request_does_not_name_is_the_servers_own(
    builder: JobBuilder,
    options: dict[str, Any],
    body: dict[str, Any],
    is_default: tuple[bool, bool | None],
):
    job = txt2img(builder, options, override_settings=body).job
    found = job.checkpoint.is_default, None if job.vae is None else job.vae.is_default
    assert found == is_default


def test_a_file_of_the_servers_own_that_has_gone_is_no_fault_of_the_request(builder: JobBuilder):
    (checkpoint, *_) = builder.catalog.checkpoints
    checkpoint.path.unlink()
    with pytest.raises(DefaultModelUnusable, match=r"one\.safetensors: the file is gone"):
        txt2img(builder)
    with pytest.raises(ModelUnusable, match=r"^one\.safetensors: the file is gone"):
        txt2img(builder, override_settings={"sd_model_checkpoint": "one"})


@pytest.mark.parametrize(
    ("body", "sampler"),
    [
        ({"sampler_name": "DPM++ SDE"}, "DPM\\+\\+ SDE"),
        ({"sampler_name": "DPM++ 2M SDE", "subseed_strength": 0.5}, "DPM\\+\\+ 2M SDE"),
        (
            {"enable_hr": True, "denoising_strength": 0.5, "hr_sampler_name": "DPM++ 3M SDE"},
            "DPM\\+\\+ 3M SDE",
        ),
    ],
)
def test_negative_seed_is_refused_where_noise_is_brownian(
    builder: JobBuilder, body: dict[str, Any], sampler: str
):
    with pytest.raises(BadRequest, match=f"seed: -7 is negative.*'{sampler}'"):
        txt2img(builder, seed=-7, batch_size=2, **body)
    whole_batch = txt2img(builder, {"no_dpmpp_sde_batch_determinism": True}, seed=-7, **body)
    assert whole_batch.job.seeds[0] == -7


def test_negative_subseed_suits_every_sampler(builder: JobBuilder):
    body = {"sampler_name": "DPM++ SDE", "subseed": -7, "subseed_strength": 0.5}
    assert txt2img(builder, seed=7, **body).job.subseeds == (-7,)


def test_fewer_init_images_than_a_batch_make_the_batch_and_leave_seeds_and_prompts(
    builder: JobBuilder,
):
    pictures = (PICTURE, PICTURE)
    job = img2img(builder, pictures, batch_size=3, n_iter=2, seed=5, subseed=1).job
    assert (job.batch_size, job.n_iter, job.picture_count) == (2, 2, 4)
    assert job.seeds == (5, 6, 7, 8, 9, 10)
    assert (len(job.prompts), len(job.negative_prompts), len(job.subseeds)) == (6, 6, 6)


@pytest.mark.parametrize(
    ("given", "missing"),
    [("firstphase_width", "firstphase_height"), ("firstphase_height", "firstphase_width")],
)
def test_half_a_size_of_a_first_pass_is_refused_by_the_other_half(
    builder: JobBuilder, given: str, missing: str
):
    with pytest.raises(BadRequest, match=f"^{missing}: 0 is too small"):
        txt2img(builder, enable_hr=True, denoising_strength=0.5, **{given: 32})


def test_empty_sampler_names_are_as_good_as_none(builder: JobBuilder):
    assert txt2img(builder, sampler_name="", sampler_index="").job.sampler.name == "Euler"
