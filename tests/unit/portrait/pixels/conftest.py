from dataclasses import dataclass
from pathlib import Path

import pytest

from sdapi.portrait.faces.face import Face, Pixels
from sdapi.portrait.faces.providers import Choices, Providers
from tests.portraits.people import pixels


@dataclass(frozen=True)
class Photo:
    """A rendered person with the face located."""

    rgb: Pixels
    face: Face


@pytest.fixture(scope="session")
def built_in() -> Providers:
    return Providers(Choices.make(Path("/nowhere"), {}))


def _photo(providers: Providers, name: str) -> Photo:
    rgb = pixels(name)
    return Photo(rgb, providers.landmarks.locate(rgb, providers.detector.detect(rgb)[0]))


@pytest.fixture(scope="session")
def person(built_in: Providers) -> Photo:
    return _photo(built_in, "person_0")


@pytest.fixture(scope="session")
def stranger(built_in: Providers) -> Photo:
    return _photo(built_in, "stranger")
