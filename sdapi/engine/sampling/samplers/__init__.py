"""Samplers: from noise to a latent. One function each, pure but for the noise it draws.

Sigmas are float32 scalars on the CPU, and their arithmetic stays float32, as in the reference.
Formulae: k-diffusion's, at the state the contract pins (webui-generation 5).
"""

from sdapi.engine.sampling.samplers.dpm_solver import (
    SigmaRange,
    sample_dpm_adaptive,
    sample_dpm_fast,
)
from sdapi.engine.sampling.samplers.dpmpp import (
    sample_dpmpp_2m,
    sample_dpmpp_2m_sde,
    sample_dpmpp_2m_sde_heun,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
)
from sdapi.engine.sampling.samplers.explicit import (
    sample_dpm_2,
    sample_dpm_2_ancestral,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
    sample_lms,
)
from sdapi.engine.sampling.samplers.restart import sample_lcm, sample_restart
from sdapi.engine.sampling.samplers.run import Denoiser, Run, Sampler
from sdapi.engine.sampling.samplers.timestep import (
    Prediction,
    ddim_timesteps,
    sample_ddim,
    sample_ddim_cfgpp,
    sample_plms,
)
from sdapi.engine.sampling.samplers.unipc import sample_unipc

#: Samplers that follow a list of sigmas.
SIGMA_SAMPLERS: dict[str, Sampler] = {
    "DPM++ 2M": sample_dpmpp_2m,
    "DPM++ SDE": sample_dpmpp_sde,
    "DPM++ 2M SDE": sample_dpmpp_2m_sde,
    "DPM++ 2M SDE Heun": sample_dpmpp_2m_sde_heun,
    "DPM++ 2S a": sample_dpmpp_2s_ancestral,
    "DPM++ 3M SDE": sample_dpmpp_3m_sde,
    "Euler a": sample_euler_ancestral,
    "Euler": sample_euler,
    "LMS": sample_lms,
    "Heun": sample_heun,
    "DPM2": sample_dpm_2,
    "DPM2 a": sample_dpm_2_ancestral,
    "Restart": sample_restart,
    "LCM": sample_lcm,
}

#: Samplers that choose their own sigmas within a range.
RANGE_SAMPLERS = {
    "DPM fast": sample_dpm_fast,
    "DPM adaptive": sample_dpm_adaptive,
}

#: Samplers over training time steps.
TIMESTEP_SAMPLERS = {
    "DDIM": sample_ddim,
    "DDIM CFG++": sample_ddim_cfgpp,
    "PLMS": sample_plms,
}
UNIPC = "UniPC"

#: Sigma-space samplers that read no eta; the infotext of their pictures tells none.
WITHOUT_ETA = frozenset({"DPM++ 2M", "DPM2", "Euler", "Heun", "LCM", "LMS", "Restart"})
#: Sigma-space samplers whose noise decays with eta; the others read theirs as a share of a step.
EXPONENTIAL_SDE = frozenset({"DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"})
#: Sigma-space samplers that read the whole churn window, and those that read `s_noise` only.
WITH_CHURN = frozenset({"DPM2", "Euler", "Heun"})
WITH_S_NOISE = WITH_CHURN | {
    "DPM fast",
    "DPM2 a",
    "DPM++ 2S a",
    "DPM++ SDE",
    "DPM++ 2M SDE",
    "DPM++ 2M SDE Heun",
    "DPM++ 3M SDE",
}
#: Samplers that divide by a step's length: no two of their noise levels may be equal.
WITH_DISTINCT_SIGMAS = frozenset(
    {
        "DPM fast",
        "DPM++ 2M",
        "DPM++ 2M SDE",
        "DPM++ 2M SDE Heun",
        "DPM++ 3M SDE",
        "DPM++ SDE",
        "LMS",
    }
)
#: What the request's CFG scale is divided by.
CFG_DIVISORS = {"DDIM CFG++": 12.5}

__all__ = [
    "CFG_DIVISORS",
    "EXPONENTIAL_SDE",
    "RANGE_SAMPLERS",
    "SIGMA_SAMPLERS",
    "TIMESTEP_SAMPLERS",
    "UNIPC",
    "WITHOUT_ETA",
    "WITH_CHURN",
    "WITH_DISTINCT_SIGMAS",
    "WITH_S_NOISE",
    "Denoiser",
    "Prediction",
    "Run",
    "Sampler",
    "SigmaRange",
    "ddim_timesteps",
    "sample_unipc",
]
