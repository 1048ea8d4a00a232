"""Any parameters -> infotext -> parameters is the identity, through the code that requests take."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from sdapi import infotext
from sdapi.engine.checkpoints.architecture import Family
from sdapi.engine.checkpoints.checkpoint import alphas_cumprod
from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.sampling.noise import ImageNoise, NoiseSource, Seeds
from sdapi.engine.sampling.noise_schedule import job_alphas
from sdapi.engine.sampling.run_settings import RunSources, sigma_settings, timestep_settings
from sdapi.engine.sampling.sampler_names import SAMPLERS, SCHEDULERS, resolve
from sdapi.engine.sampling.samplers import TIMESTEP_SAMPLERS, UNIPC
from sdapi.engine.sampling.sampling_pass import schedule_sigmas
from sdapi.engine.sampling.schedules import ModelSigmas
from sdapi.errors import BadRequest
from sdapi.options import Options
from sdapi.schemas.generation import Txt2ImgRequest
from sdapi.services.catalog.catalog import Catalog
from sdapi.services.catalog.model_files.hashes import HashCache
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.services.catalog.styles import Styles
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.drafting.draft import Draft
from sdapi.services.generation.drafting.job_builder import JobBuilder
from sdapi.services.generation.eas import EASFields
from sdapi.services.generation.telling.generation_info import GenerationInfo
from sdapi.settings import Settings
from tests.fakes import no_models

ALPHAS = alphas_cumprod(0.00085, 0.012)
#: Lines lose the space around them, empty ones at the ends are lost, and this mark ends a prompt.
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), max_size=12).map(
    lambda line: line.replace("Negative prompt:", "").replace("#", "").strip()
)
PROMPTS = st.lists(LINES, max_size=3).map(lambda lines: "\n".join(lines).strip())
SHARES = st.floats(0.01, 1, allow_nan=False)
LEVELS = st.floats(0.05, 20, allow_nan=False)
#: Beta's parameters are written under keys that the reference does not read.
LABELS = [s.label for s in SCHEDULERS if s.name != "beta"]

BODIES = st.fixed_dictionaries(
    {
        "prompt": PROMPTS,
        "negative_prompt": PROMPTS,
        "seed": st.integers(0, 1 << 60),
        "steps": st.integers(2, 60),
        "cfg_scale": st.floats(-30, 30, allow_nan=False),
        "width": st.integers(8, 200).map(lambda n: n * 8),
        "height": st.integers(8, 200).map(lambda n: n * 8),
        "sampler_name": st.sampled_from([s.name for s in SAMPLERS]),
        "scheduler": st.sampled_from(LABELS),
    },
    optional={"subseed": st.integers(0, 1 << 40), "subseed_strength": SHARES},
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "CLIP_stop_at_last_layers": st.integers(1, 12),
        "randn_source": st.sampled_from(["GPU", "CPU", "NV"]),
        "eta_noise_seed_delta": st.integers(-99999, 99999),
        "eta_ancestral": SHARES,
        "eta_ddim": SHARES,
        "s_churn": LEVELS,
        "s_tmin": LEVELS,
        "s_tmax": LEVELS,
        "s_noise": LEVELS,
        "sigma_min": SHARES,
        "sigma_max": LEVELS,
        "rho": LEVELS,
        "always_discard_next_to_last_sigma": st.booleans(),
        "tiling": st.booleans(),
        "token_merging_ratio": SHARES,
        "use_downcasted_alpha_bar": st.booleans(),
        "prompt_attention": st.just("webui"),
        "hypertile_enable_unet": st.booleans(),
        "hypertile_max_depth_unet": st.integers(0, 3),
        "hypertile_enable_vae": st.booleans(),
        "hypertile_swap_size_vae": st.integers(0, 64),
    },
)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> JobBuilder:
    data = tmp_path_factory.mktemp("data")
    folder = data / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    (folder / "one.safetensors").write_bytes(b"x")
    server = Settings(data_dir=data)
    networks = NetworkCatalog(server, HashCache(data, "network_hashes"))
    return JobBuilder(
        Catalog(server, HashCache(data)), Styles(), networks, Upscalers(server), no_models
    )


def drawn_keys(job: Job) -> dict[str, Any]:
    """The keys that come up while sampling, from the code that samples, without a model."""
    extra: dict[str, Any] = {}
    alphas = job_alphas(ALPHAS, job.options, extra)
    source = NoiseSource("CPU", torch.device("cpu"))
    sources = RunSources(ImageNoise(source, (4, 8, 8), Seeds(job.seeds, job.subseeds)), Monitor())
    if job.sampler.name in TIMESTEP_SAMPLERS or job.sampler.name == UNIPC:
        timestep_settings(job, sources, extra)
        return extra
    sigmas = schedule_sigmas(job, ModelSigmas(alphas), Family.SD1, job.steps, extra)
    if "brownian_noise" not in job.sampler.options or sigmas.isfinite().all():
        sigma_settings(job, sources, sigmas, sigmas, extra)
    return extra


def written(draft: Draft, options: Options) -> str:
    info = GenerationInfo(
        job=draft.job,
        options=options,
        checkpoint=draft.checkpoint,
        vae=None,
        vae_hash=None,
        styles=(),
        style_prompts=(),
        extra=draft.keys | drawn_keys(draft.job),
        job_timestamp="",
        is_inpainting_model=False,
        subseed_strength=0,
        seed_resize_from_w=-1,
        seed_resize_from_h=-1,
    )
    return info.infotext(0)


def build(builder: JobBuilder, body: dict[str, Any], options: Options) -> Draft:
    return builder.build("a", Txt2ImgRequest.model_validate(body), options, EASFields())


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(BODIES, OPTIONS)
def test_what_an_infotext_says_makes_the_same_job(
    builder: JobBuilder, body: dict[str, Any], changed: dict[str, Any]
):
    options = Options.defaults().overlay(changed)
    draft = build(builder, body, options)
    try:
        text = written(draft, options)
    except BadRequest:  # noise levels that no sampler can follow: there is no picture to tell of
        reject()

    defaults = Options.defaults()
    parsed = infotext.parse(text, options=defaults, styles=Styles())
    fields = infotext.request_fields(
        parsed, "txt2img", resolve_sampler=lambda s, label: (resolve(s, label)[0].name, label)
    )
    again = defaults.overlay(infotext.option_overrides(parsed, defaults))
    copy = build(builder, fields, again)

    assert written(copy, again) == text
    for name in ("prompts", "negative_prompts", "seeds", "steps", "cfg_scale", "width", "height"):
        assert getattr(copy.job, name) == getattr(draft.job, name)
    assert copy.job.sampler == draft.job.sampler
    assert copy.job.subseed_strength == draft.job.subseed_strength
    if draft.job.subseed_strength:
        assert copy.job.subseeds == draft.job.subseeds
