"""Previews that the device decodes while it draws, when somebody asks."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from sdapi.engine.engine import Engine
from sdapi.engine.jobs.monitor import Monitor, Preview, PreviewMethod
from sdapi.engine.jobs.stages import Stages
from sdapi.engine.latents import vae
from sdapi.engine.latents.preview import approximate
from sdapi.options import Options
from sdapi.services.jobs.tasks import Task
from sdapi.services.jobs.telling.previews import Previews
from tests.engines import cpu_engine, golden_file, tiny_job


class Asking(Stages):
    """Asks at the first step, and keeps what there is after the second."""

    def __init__(self, monitor: Monitor, method: PreviewMethod) -> None:
        super().__init__()
        self._monitor, self._method = monitor, method
        self.latents: list[torch.Tensor] = []
        self.seen: list[Preview | None] = []

    def on_step(self, index: int, denoised: torch.Tensor | None) -> None:
        assert denoised is not None
        self.latents.append(denoised.clone())
        self.seen.append(self._monitor.preview)
        if index == 0:
            self._monitor.wanted_preview = self._method


@pytest.fixture
def engine() -> Engine:
    return cpu_engine()


def asked(engine: Engine, golden: Path, method: PreviewMethod) -> Asking:
    monitor = Monitor()
    asking = Asking(monitor, method)
    job = tiny_job(golden_file(golden, "tinyA"), steps=3, stages=(asking,))
    assert engine.run(job, monitor).images
    return asking


def test_full_preview_is_what_the_vae_makes_of_the_step_it_was_asked_at(
    engine: Engine, golden: Path
):
    asking = asked(engine, golden, PreviewMethod.FULL)

    before, shown, later = asking.seen
    assert before is None
    assert shown is not None
    assert (shown.step, later) == (0, shown)
    with engine.models.checkpoint(golden_file(golden, "tinyA")) as loaded, torch.inference_mode():
        parts = loaded.components
        whole = vae.decode(parts.vae, asking.latents[0], parts.scale_factor)
    assert shown.images[0].tobytes() == whole[0].tobytes()


def test_preview_without_the_file_of_taesd_is_approximate_and_the_job_goes_on(
    engine: Engine, golden: Path, tmp_path: Path
):
    engine.models.vae_approx_dir = tmp_path
    asking = asked(engine, golden, PreviewMethod.TAESD)
    assert asking.seen[1] is not None
    assert asking.seen[1].images[0].tobytes() == approximate(asking.latents[0])[0].tobytes()


def options(**changes: object) -> Options:
    return Options.defaults().overlay({"show_progress_every_n_steps": 2} | changes)


def running(step: int) -> Task:
    task = Task("a", "txt2img")
    task.monitor.latent, task.monitor.sampling_step = torch.zeros(1, 4, 8, 8), step
    return task


def test_who_asks_for_a_full_preview_gets_it_once_the_device_has_made_it():
    task, previews, full = running(1), Previews(), options(show_progress_type="Full")

    rough = previews.current(task, full)
    assert task.monitor.wanted_preview is PreviewMethod.FULL
    task.monitor.wanted_preview = None
    task.monitor.preview = Preview(1, [Image.new("RGB", (64, 64), "red")])
    sharp = previews.current(task, full)

    assert rough is not None
    assert sharp is not None
    assert sharp != rough
    assert task.monitor.wanted_preview is None
    task.monitor.sampling_step = 3
    assert previews.current(task, full) == sharp
    assert task.monitor.wanted_preview is PreviewMethod.FULL


@pytest.mark.parametrize("kind", ["Approx NN", "Approx cheap"])
def test_approximate_previews_ask_nothing_of_the_device(kind: str):
    task = running(1)
    assert Previews().current(task, options(show_progress_type=kind)) is not None
    assert task.monitor.wanted_preview is None
