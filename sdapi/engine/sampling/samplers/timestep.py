"""Samplers over training time steps: DDIM and PLMS, as latent diffusion had them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sdapi.engine.sampling.samplers.run import Run
from sdapi.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Prediction:
    """The noise in a latent with guidance, and without."""

    guided: Tensor
    uncond: Tensor


#: (latents, time step, possibly fractional) -> predicted noise
NoiseModel = Callable[[Tensor, float], Prediction]
_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def ddim_timesteps(steps: int, train_steps: int = 1000) -> list[int]:
    """Rising time steps; more than `steps` when it does not divide the training steps."""
    stride = max(train_steps // steps, 1)
    return [min(t + 1, train_steps - 1) for t in range(0, train_steps, stride)]


def sample_ddim(
    predict: NoiseModel, x: Tensor, timesteps: list[int], alphas_cumprod: Tensor, run: Run
) -> Tensor:
    """DDIM, Song et al. 2020, equation 12; one call fewer than there are time steps."""
    return _ddim(predict, x, timesteps, alphas_cumprod, run, renoises_uncond=False)


def sample_ddim_cfgpp(
    predict: NoiseModel, x: Tensor, timesteps: list[int], alphas_cumprod: Tensor, run: Run
) -> Tensor:
    """DDIM with CFG++ (Chung et al. 2024): the way back to noise goes without guidance."""
    return _ddim(predict, x, timesteps, alphas_cumprod, run, renoises_uncond=True)


def _ddim(
    predict: NoiseModel,
    x: Tensor,
    timesteps: list[int],
    alphas_cumprod: Tensor,
    run: Run,
    *,
    renoises_uncond: bool,
) -> Tensor:
    alphas = _Alphas(timesteps, alphas_cumprod)
    for i, index in enumerate(range(len(timesteps) - 1, 0, -1)):
        predicted = predict(x, timesteps[index])
        alpha, alpha_next = alphas.here(index), alphas.before(index)
        sigma = _added_noise(alpha, alpha_next, run)
        clean = (x - (1 - alpha) ** 0.5 * predicted.guided) / alpha**0.5
        noise = predicted.uncond if renoises_uncond else predicted.guided
        x = alpha_next**0.5 * clean + (1 - alpha_next - sigma**2) ** 0.5 * noise
        if run.eta:
            x = x + sigma * run.noise()
        run.on_step(i)
    return x


def _added_noise(alpha: float, alpha_next: float, run: Run) -> float:
    """How much of the noise after a step is new; raises `BadRequest` for more than there is."""
    variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    if run.eta**2 * variance > 1 - alpha_next:
        raise BadRequest(
            f"{run.eta_name}: {run.eta:g} adds more noise than a step of this length leaves; -1 to "
            "1 always fit"
        )
    return run.eta * variance**0.5


def sample_plms(
    predict: NoiseModel, x: Tensor, timesteps: list[int], alphas_cumprod: Tensor, run: Run
) -> Tensor:
    """PLMS, Liu et al. 2022: DDIM steps along noise extrapolated from up to four predictions."""
    alphas = _Alphas(timesteps, alphas_cumprod)
    history: list[Tensor] = []
    for i, index in enumerate(range(len(timesteps) - 1, 0, -1)):
        noise = predict(x, timesteps[index]).guided
        if not history:
            ahead = alphas.step(x, noise, index)
            later = predict(ahead, timesteps[max(index - 1, 0)]).guided
            direction = (noise + later) / 2
        else:
            latest = [noise, *history]
            weights = _ADAMS_BASHFORTH[len(latest) - 1]
            direction = sum(w * e for w, e in zip(weights, latest, strict=True))
        assert isinstance(direction, Tensor)
        x = alphas.step(x, direction, index)
        history = [noise, *history][:3]
        run.on_step(i)
    return x


class _Alphas:
    """Cumulative products at the time steps of a run, and at the ones before them."""

    def __init__(self, timesteps: list[int], alphas_cumprod: Tensor) -> None:
        values = alphas_cumprod.double().tolist()
        self._here = [values[t] for t in timesteps]
        self._before = [values[t] for t in (0, *timesteps[:-1])]

    def here(self, index: int) -> float:
        return self._here[index]

    def before(self, index: int) -> float:
        return self._before[index]

    def step(self, x: Tensor, noise: Tensor, index: int) -> Tensor:
        """One DDIM step without new noise."""
        alpha, alpha_next = self._here[index], self._before[index]
        clean = (x - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        return alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * noise
