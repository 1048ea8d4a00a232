"""The models of one job, as each of its passes sees them."""

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdapi.engine.adaptations.circular import circular_padding
from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.checkpoints.precision import NanRule, wider_vae_type
from sdapi.engine.drawing.pass_plan import Model
from sdapi.engine.jobs.job import Job
from sdapi.engine.latents.tiny_vae import Half
from sdapi.engine.models.device_models import Models


@dataclass(slots=True)
class JobModels:
    """Lends them, and counts how long that takes."""

    models: Models
    #: with all of its passes
    job: Job
    checks_nan: bool = True
    #: seconds that loading took
    load_s: float = 0.0

    @contextmanager
    def lend(self, job: Job) -> Generator[Model]:
        """The checkpoint of a job, as one of its passes sees it, with the job's VAE in place."""
        started = time.perf_counter()
        with (
            self.models.checkpoint(job.checkpoint) as loaded,
            self._vae(job, loaded.components) as module,
        ):
            self.load_s += time.perf_counter() - started
            components = replace(loaded.components, vae=module, nans=self._nan_rule(job))
            with circular_padding((components.unet, module), wanted=job.tiling):
                yield Model(components, loaded.conditioner, loaded)

    def _nan_rule(self, job: Job) -> NanRule:
        options = job.options
        wider = wider_vae_type(
            prefers_bfloat16=options.auto_vae_precision_bfloat16, allowed=options.auto_vae_precision
        )
        return NanRule(self.checks_nan, wider)

    @contextmanager
    def _vae(self, job: Job, components: Components) -> Generator[AutoencoderKL]:
        """The job's VAE, or the checkpoint's own; TAESD in place of the halves that ask for it."""
        options, halves = job.options, list[Half]()
        encodes = self.job.init is not None or self.job.hires is not None
        if encodes and options.vae_encode_method == "TAESD":
            halves.append("encoder")
        if options.vae_decode_method == "TAESD":
            halves.append("decoder")
        with ExitStack() as lent:
            full = components.vae
            if job.vae is not None:
                full = lent.enter_context(self.models.vae(job.vae, components))
            yield lent.enter_context(self.models.tiny_halves(full, components, halves))
