"""What a running job has so far, decoded by its VAE or by TAESD for whoever watches."""

import logging

from sdapi.engine.checkpoints.precision import NANS_PASS
from sdapi.engine.drawing.pass_plan import Model
from sdapi.engine.jobs.monitor import Monitor, Preview, PreviewMethod
from sdapi.engine.latents import vae
from sdapi.engine.latents.preview import approximate
from sdapi.engine.models.device_models import Models
from sdapi.errors import ModelUnusable

log = logging.getLogger(__name__)


def show_preview(models: Models, model: Model, monitor: Monitor) -> None:
    """Decode the latest prediction if somebody has asked since the last time.

    Belongs into the device's thread. A missing file of TAESD costs the preview its sharpness, not
    the job.
    """
    method, latent = monitor.wanted_preview, monitor.latent
    if method is None or latent is None:
        return
    monitor.wanted_preview = None
    components = model.components
    try:
        halves = ("decoder",) if method is PreviewMethod.TAESD else ()
        with models.tiny_halves(components.vae, components, halves) as decoder:
            images = vae.decode(decoder, latent, components.scale_factor, NANS_PASS)
    except ModelUnusable as error:
        log.warning("show_progress_type TAESD: %s", error)
        images = approximate(latent)
    monitor.preview = Preview(monitor.sampling_step, images)
