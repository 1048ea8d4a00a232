"""Seeds of requests, and of each of their pictures (contract: webui-api 6.7)."""

import random
from typing import Final, TypeVar

from sdapi.engine.jobs.job import Job
from sdapi.errors import BadRequest
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.scripts.script import GenerationRequest

_MAX_RANDOM_SEED: Final = 4294967294
_SEED_LIMIT: Final = 1 << 64


def random_seed() -> int:
    """One that nobody chose."""
    return random.randrange(_MAX_RANDOM_SEED)


def fixed_seed(value: int | None, name: str) -> int:
    """A request's seed, or a random one for -1 and null; raises `BadRequest` beyond 64 bits."""
    if value is None or value == -1:
        return random_seed()
    if not -_SEED_LIMIT // 2 <= value < _SEED_LIMIT:
        raise BadRequest(f"{name}: {value} does not fit into 64 bits")
    return value


def picture_seeds(
    request: GenerationRequest, count: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Every picture's seed and subseed; with a variation all share the seed."""
    seed, subseed = fixed_seed(request.seed, "seed"), fixed_seed(request.subseed, "subseed")
    varies = bool(request.subseed_strength)
    seeds = tuple(seed if varies else seed + i for i in range(count))
    return seeds, tuple(subseed + i for i in range(count))


def check_seeds(job: Job) -> None:
    """Refuse a seed below 0 where a pass draws Brownian noise: its tree takes none.

    Variations, and what comes after the first draw, take any seed; with option
    `no_dpmpp_sde_batch_determinism` the tree's own is another.
    """
    negative = [seed for seed in job.seeds if seed < 0]
    if not negative or job.options.no_batch_determinism:
        return
    for sampler in (job.sampler, *((job.hires.sampler,) if job.hires else ())):
        if "brownian_noise" in sampler.options:
            raise BadRequest(
                f"seed: {negative[0]} is negative, and the noise of sampler {sampler.name!r} takes "
                "seeds of 0 or more (-1: a random one)"
            )


_Request = TypeVar("_Request", Txt2ImgRequest, Img2ImgRequest, GenerationRequest)


def with_fixed_seeds(request: _Request) -> _Request:
    """The request with seed and subseed chosen, so that copies of it share them."""
    seed, subseed = fixed_seed(request.seed, "seed"), fixed_seed(request.subseed, "subseed")
    return request.model_copy(update={"seed": seed, "subseed": subseed})
