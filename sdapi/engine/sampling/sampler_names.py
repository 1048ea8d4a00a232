"""The samplers and schedulers that requests may name, and how a request's pair resolves.

Plain data and text, so that listings and validation need no torch. Contract: webui-generation 5.1,
webui-api 6.2 and 13.
"""

from dataclasses import dataclass, field

from sdapi.errors import UnknownName, UnknownSampler, near_names

AUTOMATIC = "Automatic"


@dataclass(frozen=True, slots=True)
class SamplerInfo:
    """One sampler as clients see it; `options` in the reference's spelling."""

    name: str
    aliases: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def is_second_order(self) -> bool:
        """Whether a step counts as two denoiser calls for prompt editing and the like."""
        return "second_order" in self.options

    @property
    def default_scheduler(self) -> str | None:
        return self.options.get("scheduler")


@dataclass(frozen=True, slots=True)
class SchedulerInfo:
    """One sigma schedule as clients see it."""

    name: str
    label: str
    default_rho: float = -1.0
    needs_model: bool = False
    aliases: tuple[str, ...] | None = None


_KARRAS = {"scheduler": "karras"}
_EXPONENTIAL = {"scheduler": "exponential"}
_DISCARD = {"discard_next_to_last_sigma": "True"}
_ENSD = {"uses_ensd": "True"}
_SECOND = {"second_order": "True"}
_BROWNIAN = {"brownian_noise": "True"}

SAMPLERS = (
    SamplerInfo("DPM++ 2M", ("k_dpmpp_2m",), _KARRAS),
    SamplerInfo("DPM++ SDE", ("k_dpmpp_sde",), _KARRAS | _SECOND | _BROWNIAN),
    SamplerInfo("DPM++ 2M SDE", ("k_dpmpp_2m_sde",), _EXPONENTIAL | _BROWNIAN),
    SamplerInfo(
        "DPM++ 2M SDE Heun",
        ("k_dpmpp_2m_sde_heun",),
        _EXPONENTIAL | _BROWNIAN | {"solver_type": "heun"},
    ),
    SamplerInfo("DPM++ 2S a", ("k_dpmpp_2s_a",), _KARRAS | _ENSD | _SECOND),
    SamplerInfo("DPM++ 3M SDE", ("k_dpmpp_3m_sde",), _EXPONENTIAL | _DISCARD | _BROWNIAN),
    SamplerInfo("Euler a", ("k_euler_a", "k_euler_ancestral"), _ENSD),
    SamplerInfo("Euler", ("k_euler",)),
    SamplerInfo("LMS", ("k_lms",)),
    SamplerInfo("Heun", ("k_heun",), _SECOND),
    SamplerInfo("DPM2", ("k_dpm_2",), _KARRAS | _DISCARD | _SECOND),
    SamplerInfo("DPM2 a", ("k_dpm_2_a",), _KARRAS | _DISCARD | _ENSD | _SECOND),
    SamplerInfo("DPM fast", ("k_dpm_fast",), _ENSD),
    SamplerInfo("DPM adaptive", ("k_dpm_ad",), _ENSD),
    SamplerInfo("Restart", ("restart",), _KARRAS | _SECOND),
    SamplerInfo("DDIM", ("ddim",)),
    SamplerInfo("DDIM CFG++", ("ddim_cfgpp",)),
    SamplerInfo("PLMS", ("plms",)),
    SamplerInfo("UniPC", ("unipc",)),
    SamplerInfo("LCM", ("k_lcm",)),
)

SCHEDULERS = (
    SchedulerInfo("automatic", AUTOMATIC),
    SchedulerInfo("uniform", "Uniform", needs_model=True),
    SchedulerInfo("karras", "Karras", default_rho=7.0),
    SchedulerInfo("exponential", "Exponential"),
    SchedulerInfo("polyexponential", "Polyexponential", default_rho=1.0),
    SchedulerInfo("sgm_uniform", "SGM Uniform", needs_model=True, aliases=("SGMUniform",)),
    SchedulerInfo("kl_optimal", "KL Optimal"),
    SchedulerInfo("align_your_steps", "Align Your Steps"),
    SchedulerInfo("simple", "Simple", needs_model=True),
    SchedulerInfo("normal", "Normal", needs_model=True),
    SchedulerInfo("ddim", "DDIM", needs_model=True),
    SchedulerInfo("beta", "Beta", needs_model=True),
)

_SAMPLER_BY_NAME = {sampler.name: sampler for sampler in SAMPLERS}
_SAMPLER_BY_LOWER = {
    name.lower(): sampler for sampler in SAMPLERS for name in (sampler.name, *sampler.aliases)
}
_SCHEDULER_BY_NAME = {name: s for s in SCHEDULERS for name in (s.name, s.label, *(s.aliases or ()))}


def find_sampler(name: str) -> SamplerInfo:
    """The sampler of a name, alias or any letter case of them.

    Raises `UnknownSampler` (400 `Sampler not found`).
    """
    sampler = _SAMPLER_BY_NAME.get(name) or _SAMPLER_BY_LOWER.get(name.lower())
    if sampler is None:
        near = near_names(name, _SAMPLER_BY_NAME)
        place = f"sampler {name!r} (the nearest are {near})"
        raise UnknownSampler("Sampler not found", place=place)
    return sampler


def find_scheduler(name: str) -> SchedulerInfo:
    """The scheduler of a name, label or alias; raises `UnknownName`."""
    scheduler = _SCHEDULER_BY_NAME.get(name)
    if scheduler is None:
        labels = [s.label for s in SCHEDULERS]
        raise UnknownName(
            f"Scheduler {name!r} not found; the nearest are {near_names(name, labels)}"
        )
    return scheduler


def resolve(sampler: str, scheduler: str | None) -> tuple[SamplerInfo, str]:
    """A request's sampler and scheduler -> sampler and scheduler label (contract: webui-api 6.2).

    A scheduler name at the end of the sampler's ("DPM++ 2M Karras") wins over `scheduler`; the
    sampler's own default reads `Automatic`. Raises `UnknownSampler` or `UnknownName`.
    """
    label = find_scheduler(scheduler).label if scheduler else AUTOMATIC
    if sampler not in _SAMPLER_BY_NAME:
        # The longest first: "SGM Uniform" ends with the name of another schedule.
        for name in sorted(_SCHEDULER_BY_NAME, key=len, reverse=True):
            if sampler.endswith(f" {name}"):
                sampler = sampler.removesuffix(f" {name}")
                label = _SCHEDULER_BY_NAME[name].label
                break
    found = find_sampler(sampler)
    own = found.default_scheduler
    if own is not None and _SCHEDULER_BY_NAME[own].label == label:
        label = AUTOMATIC
    return found, label


def effective_scheduler(sampler: SamplerInfo, label: str) -> SchedulerInfo:
    """What `Automatic` means for a sampler: its own default, else the plain schedule."""
    if label == AUTOMATIC:
        return _SCHEDULER_BY_NAME[sampler.default_scheduler or "automatic"]
    return _SCHEDULER_BY_NAME[label]
