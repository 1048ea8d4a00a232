"""A creation's time over that of its drawings, and the classical chain for each face.

    python -m benchmarks.portrait_create [steps]

The demo checkpoint draws a rendered person into a rendered template; both passes have the same
number of steps. The ratio is that of one run: what is not drawing is fetching, faces and pixels.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from sdapi.portrait.base.checkpoints import BaseModels
from sdapi.portrait.creation.creator import PortraitCreator
from sdapi.portrait.creation.drawing.bases import Bases
from sdapi.portrait.creation.drawing.in_process import InProcessDrawer
from sdapi.portrait.creation.drawing.passes import Drawn, Pass
from sdapi.portrait.creation.drawing.webui import Inventory
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.handlers import trained_models
from sdapi.portrait.portrait import make_tools
from sdapi.portrait.state.records import QUEUE_OWNER
from sdapi.portrait.tools import Tools
from sdapi.portrait.wire.configure import Surface, parse_configure
from sdapi.portrait.wire.requests import CreateRequest
from sdapi.services.container import Services
from sdapi.services.jobs.worker import TorchEngines
from sdapi.settings import Settings
from tests.photo_server import photo_server
from tests.portraits.portrait_fakes import FakeDrawer
from tests.portraits.portrait_models import add_person, picture, png

_TURNS = 3


@dataclass
class TimedDrawer:
    """Draws, and counts the seconds."""

    inner: InProcessDrawer
    seconds: list[float] = field(default_factory=list[float])

    async def draw(self, asked: Pass) -> Drawn:
        started = time.perf_counter()
        try:
            return await self.inner.draw(asked)
        finally:
            self.seconds.append(time.perf_counter() - started)

    async def improve(self, rgb: Pixels, fields: Mapping[str, Any]) -> Pixels:
        return await self.inner.improve(rgb, fields)

    async def lora(self, name: str, file: Path) -> str | None:
        return await self.inner.lora(name, file)

    async def inventory(self) -> Inventory:
        return await self.inner.inventory()


async def main(steps: int) -> None:
    """Print seconds and ratios."""
    with photo_server() as server, tempfile.TemporaryDirectory() as folder:
        server.files["template"] = png(picture(33))
        settings = Settings(data_dir=Path(folder), allow_private_urls=True, portrait_processes=1)
        await add_person(settings, "ann", picture(8))
        services = Services.build(settings, TorchEngines())
        services.start()
        while not services.is_ready:
            await anyio.sleep(0.05)
        tools = make_tools(settings)
        await tools.store.open()
        drawer = TimedDrawer(InProcessDrawer(services))
        bases = Bases(BaseModels(settings, services.catalog, services.options))
        try:
            await _compare(tools, drawer, bases, f"{server.url}/template", steps)
        finally:
            tools.processes.close()
            await tools.store.close()
            services.close()


async def _compare(tools: Tools, drawer: TimedDrawer, bases: Bases, url: str, steps: int) -> None:
    count = {"first_diffusion_steps": steps, "second_diffusion_steps": steps}
    options, _ = parse_configure(count, Surface.QUEUE)
    request = CreateRequest(("ann",), False, url, options, ())
    models = await trained_models(tools.store, QUEUE_OWNER, request)
    creator = PortraitCreator(tools, drawer, bases)
    classical = PortraitCreator(tools, FakeDrawer(), bases)
    await creator.create(models, request)  # both sides warm
    ratios: list[float] = []
    for _ in range(_TURNS):
        drawer.seconds.clear()
        started = time.perf_counter()
        await creator.create(models, request)
        whole_s, drawn_s = time.perf_counter() - started, sum(drawer.seconds)
        ratios.append(whole_s / drawn_s)
        started = time.perf_counter()
        await classical.create(models, request)
        chain_s = time.perf_counter() - started
        print(
            f"creation {whole_s:.2f} s, its drawings {drawn_s:.2f} s, ratio {ratios[-1]:.2f}; "
            f"without drawing {chain_s:.2f} s a face"
        )
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 20)
