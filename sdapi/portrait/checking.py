"""Check: is each photo a picture of one face, and do all show the same person?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final, Literal

import numpy as np

from sdapi.errors import BadImage, BadUrl
from sdapi.portrait.faces.face import USUAL, Embedding, Face, FaceError, distance
from sdapi.portrait.faces.pose import is_frontal
from sdapi.portrait.faces.processes import FaceProcesses, FaceTaskFailed
from sdapi.portrait.faces.providers import Providers
from sdapi.portrait.photos import PhotoFetcher, decode_photo

#: smaller faces are passers-by and posters: as a share of the widest, and in pixels
_LEAST_SHARE: Final = 0.25
_LEAST_WIDTH: Final = 32.0


class Code(IntEnum):
    """What a check says of one photo; the first that applies in the order 2 to 6."""

    SUCCESS = 1
    NOT_DECODED = 2
    NOT_ONE_FACE = 3
    NOT_DETECTED = 4
    NOT_ENCODED = 5
    STRANGER = 6


MESSAGES: Final = {
    Code.SUCCESS: "success",
    Code.NOT_DECODED: "Image decode error.",
    Code.NOT_ONE_FACE: "Number of face is not 1.",
    Code.NOT_DETECTED: "Image detect error.",
    Code.NOT_ENCODED: "Image encoding error.",
    Code.STRANGER: "This photo is not the same person in photos.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What a face process saw in one photo."""

    code: Code
    is_frontal: bool = False
    embedding: Embedding | None = None
    metric: Literal["l2", "cosine"] = "l2"
    #: distance up to which two embeddings are one person's
    same: float = 0.0


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """The answer about one photo."""

    url: str
    code: Code
    is_frontal: bool

    @property
    def message(self) -> str:
        """What the caller is told of the photo."""
        return MESSAGES[self.code]

    def for_queue(self) -> dict[str, Any]:
        """As the queue's service answers it."""
        return {
            "url": self.url,
            "message": self.message,
            "code": int(self.code),
            "frontal": self.is_frontal,
        }

    def for_rest(self) -> dict[str, Any]:
        """As the REST API answers it."""
        return {
            "code": int(self.code),
            "frontal": self.is_frontal,
            "message": self.message,
            "url": self.url,
        }


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The answer about all photos of a request."""

    photos: tuple[PhotoResult, ...]
    cost_time_s: float


class Checker:
    """Checks the photos behind URLs; one that fails never fails the whole."""

    def __init__(self, photos: PhotoFetcher, processes: FaceProcesses) -> None:
        self._photos = photos
        self._processes = processes

    async def check(self, urls: Sequence[str], *, same_person: bool) -> CheckResult:
        """One result for each URL, in their order; `same_person` compares all with each other."""
        started = time.perf_counter()
        looked = [Looked(Code.NOT_DECODED)] * len(urls)

        async def look(index: int, url: str) -> None:
            looked[index] = await self._look(url)

        await self._photos.each(urls, look)
        if same_person:
            looked = mark_strangers(looked)
        results = tuple(
            PhotoResult(url, one.code, one.is_frontal)
            for url, one in zip(urls, looked, strict=True)
        )
        return CheckResult(results, time.perf_counter() - started)

    async def _look(self, url: str) -> Looked:
        try:
            data = await self._photos.get(url)
        except BadUrl:
            return Looked(Code.NOT_DECODED)
        try:
            return await self._processes.run(look_at, data)
        except FaceTaskFailed:
            return Looked(Code.NOT_DETECTED)


def look_at(providers: Providers, data: bytes) -> Looked:
    """Decode a photo, find the one face in it, and describe it; a task for a face process."""
    try:
        rgb = decode_photo(data, enough_side=USUAL.side)
    except BadImage:
        return Looked(Code.NOT_DECODED)
    try:
        faces = people_in(providers.detector.detect(rgb), USUAL.scale(rgb))
    except Exception:  # whatever a detector raises has one code
        return Looked(Code.NOT_DETECTED)
    if len(faces) != 1:
        return Looked(Code.NOT_ONE_FACE)
    try:
        face = providers.landmarks.locate(rgb, faces[0])
        embedder = providers.embedder
        embedding = embedder.embed(rgb, face)
    except (FaceError, RuntimeError, ValueError):
        return Looked(Code.NOT_ENCODED)
    return Looked(Code.SUCCESS, is_frontal(face), embedding, embedder.metric, embedder.same)


def people_in(faces: Sequence[Face], scale: float) -> list[Face]:
    """The faces that count; `scale` turns their pixels into those of the working size."""
    widest = max((face.width for face in faces), default=0.0)
    return [
        face
        for face in faces
        if face.width >= _LEAST_SHARE * widest and face.width * scale >= _LEAST_WIDTH
    ]


def mark_strangers(looked: Sequence[Looked]) -> list[Looked]:
    """The same results, with code 6 for those who differ from the rest."""
    known = [i for i, one in enumerate(looked) if one.embedding is not None]
    vectors = [looked[i].embedding for i in known]
    marked = list(looked)
    if known:
        metric, same = looked[known[0]].metric, looked[known[0]].same
        present = [vector for vector in vectors if vector is not None]
        for position in strangers(present, metric, same):
            marked[known[position]] = replace(looked[known[position]], code=Code.STRANGER)
    return [one if one.code is Code.SUCCESS else replace(one, is_frontal=False) for one in marked]


def strangers(
    vectors: Sequence[Embedding], metric: Literal["l2", "cosine"], same: float
) -> set[int]:
    """Who is not the person that most pictures show; up to half of them may be.

    The person is the mean of what lies near the medoid. One pass, so no result depends on order.
    """
    if len(vectors) < 2:
        return set()
    apart = np.array([[distance(a, b, metric) for b in vectors] for a in vectors])
    medoid = int(apart.sum(axis=1).argmin())
    near = [vector for vector, d in zip(vectors, apart[medoid], strict=True) if d <= same]
    centre = np.mean(near, axis=0).astype(np.float32)
    return {i for i, vector in enumerate(vectors) if distance(vector, centre, metric) > same}
