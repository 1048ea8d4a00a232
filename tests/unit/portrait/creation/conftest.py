import io
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdapi.portrait.base.words import Words
from sdapi.portrait.creation.creator import PortraitCreator
from sdapi.portrait.creation.drawing.bases import Target
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.faces.providers import Choices
from sdapi.portrait.handlers import Created, trained_models
from sdapi.portrait.models.folders import ModelFolders
from sdapi.portrait.photos import PhotoFetcher
from sdapi.portrait.state.records import QUEUE_OWNER, Base
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.portrait.tools import Tools
from sdapi.portrait.wire.configure import Surface, parse_configure
from sdapi.portrait.wire.requests import CreateRequest
from sdapi.services.fetching.fetcher import Fetcher
from sdapi.settings import Settings
from tests.photo_server import PhotoServer, photo_server
from tests.portraits.people import pixels
from tests.portraits.portrait_fakes import FacesHere, FakeDrawer
from tests.portraits.portrait_models import add_person


@dataclass
class FixedTargets:
    """A target of each kind, the same for illustrations."""

    side: int = 256
    has_anime: bool = True
    words: Words = field(default_factory=lambda: Words.read({"film_lora": ""}))
    cfg_scale: float | None = None
    has_square_templates: bool = False

    def find(self, kind: Base) -> tuple[Target, Words] | None:
        target = Target(kind, self.side, "base", self.cfg_scale, self.has_square_templates)
        return target, self.words

    def anime(self) -> tuple[Target, Words] | None:
        return (Target("sd15", self.side, "anime"), self.words) if self.has_anime else None


@dataclass
class Workplace:
    """A creator with its surroundings; `create` asks it as the surfaces do."""

    settings: Settings
    tools: Tools
    drawer: FakeDrawer
    faces: FacesHere
    targets: FixedTargets
    photos: PhotoServer

    async def create(
        self,
        *ids: str,
        template: str | None = "stranger",
        surface: Surface = Surface.QUEUE,
        is_group: bool = False,
        owner: str = QUEUE_OWNER,
        **configure: Any,
    ) -> Created:
        """The portrait; like the surfaces' own, a bare chain without the last touches."""
        plain = {
            "skin_retouching_bool": False, "photo_enhancement_bool": False, "sharp_ratio": 0,
        }  # fmt: skip
        options, warnings = parse_configure(plain | configure, surface)
        url = "" if template is None else f"{self.photos.url}/{template}"
        request = CreateRequest(
            ids or ("",), is_group, url, options, warnings, is_xl=surface is Surface.SDXL
        )
        models = await trained_models(self.tools.store, owner, request)
        creator = PortraitCreator(self.tools, self.drawer, self.targets, lambda: 7)
        return await creator.create(models, request)

    async def picture(self, *ids: str, **configure: Any) -> Pixels:
        return np.asarray((await self.create(*ids, **configure)).image)

    def serve(self, name: str, rgb: Pixels) -> None:
        """Put a picture onto the photo server."""
        data = io.BytesIO()
        Image.fromarray(rgb).save(data, "PNG")
        self.photos.files[name] = data.getvalue()


@pytest.fixture(scope="session")
def photos() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


@pytest.fixture(scope="session")
def faces() -> FacesHere:
    """Loading dlib's files takes a second, so all tests share them."""
    return FacesHere()


@pytest.fixture
async def place(tmp_path: Path, photos: PhotoServer, faces: FacesHere) -> AsyncIterator[Workplace]:
    """`ann` is the person of the pictures, `bob` the stranger; both are trained."""
    settings = Settings(data_dir=tmp_path, allow_private_urls=True)
    await add_person(settings, "ann", pixels("person_0"))
    await add_person(settings, "bob", pixels("stranger"))
    here = replace(faces, failing=set(), calls=[], given=[], answers={})
    store = SqlitePortraitStore(settings.state_file)
    await store.open()
    tools = Tools(
        store,
        ModelFolders(settings.portrait_dir),
        PhotoFetcher(Fetcher(settings)),
        here,  # pyright: ignore[reportArgumentType]
        Choices.make(Path("/nowhere"), {}),
    )
    yield Workplace(settings, tools, FakeDrawer(), here, FixedTargets(), photos)
    await store.close()


@pytest.fixture
def apart_from(faces: FacesHere) -> Callable[[Pixels, str], float]:
    """How far the one face of a picture is from a person of the pictures."""
    from sdapi.portrait.creation import face_tasks
    from sdapi.portrait.creation.one_face import largest
    from sdapi.portrait.faces.face import distance

    def embedded(rgb: Pixels) -> np.ndarray:
        seen = face_tasks.see_pixels(faces.providers, rgb)
        face = largest(seen.faces)
        assert face is not None
        return faces.providers.embedder.embed(rgb, face)

    return lambda rgb, name: distance(embedded(rgb), embedded(pixels(name)), "l2")
