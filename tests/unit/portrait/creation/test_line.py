"""Creations that wait for their turn, and large ones that keep no place from small ones."""

import asyncio

import pytest

from sdapi.errors import QueueFull
from sdapi.portrait.creation.creator import PortraitCreator
from sdapi.portrait.creation.drawing.passes import Drawn, Pass
from sdapi.portrait.creation.line import Line
from sdapi.portrait.handlers import Created, trained_models
from sdapi.portrait.state.records import QUEUE_OWNER
from sdapi.portrait.wire.configure import Surface, parse_configure
from sdapi.portrait.wire.requests import CreateRequest
from tests.portraits.people import pixels
from tests.unit.portrait.creation.conftest import Workplace

pytestmark = pytest.mark.anyio


async def _stay(line: Line, until: asyncio.Event) -> None:
    async with line.turn():
        await until.wait()


async def test_a_full_line_and_a_long_wait_are_refused():
    line, until = Line("things", 1, 1, 0.05), asyncio.Event()
    first = asyncio.create_task(_stay(line, until))
    await asyncio.sleep(0)
    second = asyncio.create_task(_stay(line, until))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="1 things are waiting already"):
        await _stay(line, until)
    with pytest.raises(QueueFull, match=r"within 0\.05 s"):
        await second
    until.set()
    await first
    await _stay(line, until)


async def test_large_templates_that_wait_keep_no_place_from_small_ones(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
):
    """As many large ones as there are places; the first is held up where it is drawn."""
    monkeypatch.setattr("sdapi.portrait.creation.creator._LARGE", pixels("stranger").size // 3)
    place.serve("large", pixels("two"))
    go_on, begun, draw = asyncio.Event(), asyncio.Event(), place.drawer.draw

    async def draw_late(asked: Pass) -> Drawn:
        if not begun.is_set():
            begun.set()
            await go_on.wait()
        return await draw(asked)

    monkeypatch.setattr(place.drawer, "draw", draw_late)
    creator = PortraitCreator(place.tools, place.drawer, place.targets, lambda: 7)
    large = [asyncio.create_task(_create(place, creator, "large")) for _ in range(4)]
    async with asyncio.timeout(60):
        await begun.wait()
        small = await _create(place, creator, "stranger")
    assert small.image.size == (320, 320)
    assert not any(task.done() for task in large)
    go_on.set()
    assert [made.image.size for made in await asyncio.gather(*large)] == [(640, 320)] * 4


async def _create(place: Workplace, creator: PortraitCreator, template: str) -> Created:
    plain = {"skin_retouching_bool": False, "photo_enhancement_bool": False, "sharp_ratio": 0}
    options, warnings = parse_configure(plain, Surface.QUEUE)
    url = f"{place.photos.url}/{template}"
    request = CreateRequest(("ann",), False, url, options, warnings)
    models = await trained_models(place.tools.store, QUEUE_OWNER, request)
    return await creator.create(models, request)
