"""Whose turn it is when several pictures want a description."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from PIL import Image

from sdapi.errors import BadRequest, Missing, QueueFull, TimedOut
from sdapi.options import Options
from sdapi.services.interrogation.interrogators import Interrogators
from sdapi.services.interrogation.local_models import LocalModels
from sdapi.settings import Settings

pytestmark = pytest.mark.anyio
PICTURE, OPTIONS = Image.new("RGB", (8, 8)), Options.defaults()


class SlowModel:
    """Describes a picture once it may."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.has_begun = threading.Event()
        self.threads = list[str]()

    def describe(self, image: Image.Image, options: Options) -> str:
        self.has_begun.set()
        assert self.may_go_on.wait(30)
        self.threads.append(threading.current_thread().name)
        return f"{image.width} wide"


@pytest.fixture
def model() -> Iterator[SlowModel]:
    model = SlowModel()
    yield model
    model.may_go_on.set()


async def test_pictures_are_described_one_at_a_time_in_one_thread(model: SlowModel):
    interrogators = Interrogators({"slow": model.describe})
    model.may_go_on.set()
    asked = [interrogators.describe(PICTURE, "slow", OPTIONS) for _ in range(5)]
    assert await asyncio.gather(*asked) == ["8 wide"] * 5
    assert len(set(model.threads)) == 1
    with pytest.raises(Missing, match="Model not found"):
        await interrogators.describe(PICTURE, "other", OPTIONS)


async def test_more_than_the_limit_are_refused_but_for_those_that_have_begun(model: SlowModel):
    interrogators = Interrogators({"slow": model.describe}, limit=2)
    asked = [
        asyncio.create_task(interrogators.describe(PICTURE, "slow", OPTIONS)) for _ in range(2)
    ]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="2 pictures wait"):
        await interrogators.describe(PICTURE, "slow", OPTIONS)
    begun = asyncio.create_task(interrogators.describe_begun(PICTURE, "slow", OPTIONS))
    await asyncio.sleep(0)
    model.may_go_on.set()
    assert await asyncio.gather(*asked, begun) == ["8 wide"] * 3
    assert await interrogators.describe(PICTURE, "slow", OPTIONS) == "8 wide"


async def test_who_waits_too_long_is_told_and_gives_up_the_place(model: SlowModel):
    interrogators = Interrogators({"slow": model.describe}, limit=2, timeout_s=0.5)
    asked = [interrogators.describe(PICTURE, "slow", OPTIONS) for _ in range(2)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [TimedOut, TimedOut]
    model.may_go_on.set()
    patient = Interrogators({"slow": model.describe})
    assert await patient.describe(PICTURE, "slow", OPTIONS) == "8 wide"
    # Of the two only the one whose turn it was has been looked at.
    assert len(model.threads) == 2


@pytest.mark.parametrize(
    "option", ["num_beams", "min_length", "max_length"], ids=lambda name: str(name)
)
async def test_captions_that_would_take_hours_are_refused(tmp_path, option: str):
    describe = LocalModels(Settings(data_dir=tmp_path)).by_name()["clip"]
    options = OPTIONS.overlay({f"interrogate_clip_{option}": 100_000})
    with pytest.raises(BadRequest, match=rf"interrogate_clip_{option}: 100000 is too many"):
        describe(PICTURE, options)
