"""What all batches of a job start from: its pictures as latents, encoded once."""

from dataclasses import dataclass

from torch import Tensor

from sdapi.engine.drawing.pass_plan import Model, PassPlan
from sdapi.engine.jobs.init_images import Inversion
from sdapi.engine.jobs.job import Job
from sdapi.engine.latents.image_cond import image_conditioning
from sdapi.engine.latents.init_latent import InitLatent, encode_init, seeded_generator
from sdapi.engine.models.device_models import Models
from sdapi.engine.sampling.denoising.blend import Blend
from sdapi.engine.sampling.inversion import find_noise, from_found_noise
from sdapi.engine.sampling.noise import NoiseSource
from sdapi.engine.sampling.sampling_pass import SamplingPass, Start


@dataclass(slots=True)
class JobStart:
    """The first batch that asks has it encoded; the others find it."""

    models: Models
    job: Job
    #: further input channels of the UNet [B, K, h, w]
    image_cond: Tensor | None = None
    _init: InitLatent | None = None
    _is_encoded: bool = False
    #: behind the init picture
    _found_noise: Tensor | None = None

    def encode(self, model: Model) -> None:
        """Encode the job's pictures with a model, unless that is done; raises `NanProduced`."""
        if self._is_encoded:
            return
        job, device = self.job, self.models.device
        generator = seeded_generator(job)
        if job.init is not None:
            source = NoiseSource(job.options.randn_source, device)
            self._init = encode_init(model.components, job, job.init, source, generator)
        self.image_cond = image_conditioning(model.components, job, device, generator)
        self._is_encoded = True

    @property
    def start(self) -> Start | None:
        """Where a sampler starts; None: from noise alone."""
        if self.job.init is None or self._init is None:
            return None
        return Start(
            self._init.latent,
            self.job.init.denoising_strength,
            self.job.init.noise_multiplier,
            self.job.options.img2img_extra_noise,
            self.job.options.img2img_fix_steps,
        )

    @property
    def blend(self) -> Blend | None:
        """What of the pictures stays."""
        return self._init.blend if self._init else None

    def inverted(
        self, inversion: Inversion, plan: PassPlan, model: Model, sampling: SamplingPass
    ) -> SamplingPass:
        """A run that starts from the noise behind the picture, which all batches share."""
        assert sampling.start is not None
        if self._found_noise is None:
            cond = plan.inversion_cond(model, inversion)
            self._found_noise = find_noise(inversion, sampling, sampling.start, cond)
        return from_found_noise(inversion, sampling, sampling.start, self._found_noise)
