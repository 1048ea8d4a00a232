"""Modules that change what is predicted, on a tiny checkpoint without a control model."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.modules.prediction import blurred
from sdapi.engine.control.unit import ControlUnit, Pixels
from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.jobs.stages import Stages
from sdapi.engine.latents.init_latent import encode_pixels
from sdapi.engine.latents.vae import to_tensor


def drawn(engine: Engine, job: Job, unit: ControlUnit) -> np.ndarray[Any, Any]:
    result = engine.run(replace(job, stages=(ControlStages([unit]),)), Monitor())
    return np.asarray(result.images[0].image).astype(int)


class Latest(Stages):
    """Keeps the latest prediction."""

    latent = torch.zeros(0)

    def on_step(self, index: int, denoised: torch.Tensor | None) -> None:
        assert denoised is not None
        self.latent = denoised


def test_tile_colorfix_predicts_the_colours_of_the_picture(engine: Engine, job: Job, photo: Pixels):
    unit = ControlUnit("unit", "tile_colorfix", None, photo, threshold_a=3)
    with engine.models.checkpoint(job.checkpoint) as loaded, torch.inference_mode():
        noise = torch.Generator().manual_seed(7)
        picture = to_tensor([Image.fromarray(photo)])
        origin = encode_pixels(loaded.components, job, picture, noise)

    def off(*stages: Stages) -> float:
        latest = Latest()
        engine.run(replace(job, stages=(*stages, latest)), Monitor())
        return float((blurred(latest.latent, 3) - blurred(origin, 3)).abs().mean())

    sharp = replace(unit, module="tile_colorfix+sharp", threshold_b=1.0)
    plain, fixed, sharpened = off(), off(ControlStages([unit])), off(ControlStages([sharp]))
    assert fixed < plain / 2
    assert sharpened != fixed


def test_recolor_gives_a_picture_the_brightness_of_another(engine: Engine, job: Job, photo: Pixels):
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    hint = np.repeat(grey[:, :, None], 3, axis=2)
    picture = drawn(engine, job, ControlUnit("unit", "recolor_intensity", None, hint))
    assert np.abs(picture.max(axis=2) - grey).max() <= 2


def test_a_blur_keeps_the_mean_of_an_even_latent():
    even = torch.full((1, 4, 6, 6), 2.5)
    assert torch.equal(blurred(even, 3), even)
