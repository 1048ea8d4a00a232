"""Sigmas and the resolution of names against the reference's."""

import json
from pathlib import Path

import pytest

from sdapi.engine.checkpoints.checkpoint import alphas_cumprod
from sdapi.engine.sampling.sampler_names import find_scheduler, resolve
from sdapi.engine.sampling.schedules import SCHEDULES, ModelSigmas, ScheduleRequest
from sdapi.errors import UnknownName, UnknownSampler

VECTORS = Path(__file__).parents[1] / "golden" / "vectors"
SIGMAS = json.loads((VECTORS / "schedules.json").read_text())
NAMES = json.loads((VECTORS / "sampler_names.json").read_text())
MODEL = ModelSigmas(alphas_cumprod(0.00085, 0.012))
#: The reference takes any unknown name for DPM++ 2M. Here these are aliases, and mean something …
ALIASES = {"k_euler": "Euler", "euler": "Euler"}
#: … and these are refused, as the webui's documentation promises.
UNKNOWN = ("Bogus", "None")


def test_model_sigmas_are_as_recorded():
    assert MODEL.sigmas.tolist() == pytest.approx(SIGMAS["all_sigmas"], rel=1e-5)
    assert (MODEL.min, MODEL.max) == pytest.approx((SIGMAS["sigma_min"], SIGMAS["sigma_max"]))


@pytest.mark.parametrize("key", SIGMAS["sigmas"])
def test_schedule_is_as_recorded(key: str):
    name, steps = key.split("|")
    made = SCHEDULES[find_scheduler(name).name](
        ScheduleRequest(int(steps), MODEL, MODEL.min, MODEL.max)
    )
    assert made.tolist() == pytest.approx(SIGMAS["sigmas"][key], rel=1e-5)


@pytest.mark.parametrize("key", NAMES)
def test_sampler_and_scheduler_resolve_as_recorded_or_are_refused(key: str):
    sampler, scheduler = key.split("|")
    asked = None if scheduler == "None" else scheduler
    if sampler in UNKNOWN or asked in UNKNOWN:
        with pytest.raises(UnknownName if asked in UNKNOWN else UnknownSampler):
            resolve(sampler, asked)
        return
    found, label = resolve(sampler, asked)
    if sampler in ALIASES:
        expected = ALIASES[sampler], find_scheduler(scheduler).label if asked else "Automatic"
    else:
        expected = tuple(NAMES[key])
    assert (found.name, label) == expected


@pytest.mark.parametrize("suffix", ["SGM Uniform", "sgm_uniform", "SGMUniform"])
def test_the_longest_name_of_a_schedule_is_the_suffix(suffix: str):
    sampler, label = resolve(f"Euler {suffix}", None)
    assert (sampler.name, label) == ("Euler", "SGM Uniform")
