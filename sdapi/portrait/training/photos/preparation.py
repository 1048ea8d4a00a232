"""Photos -> what is trained on, and what creation needs. Contract: portrait-pipeline 2.2."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from sdapi.errors import BadUrl
from sdapi.portrait import faults
from sdapi.portrait.checking import Code, Looked, PhotoResult, mark_strangers
from sdapi.portrait.faces.processes import FaceProcesses, FaceTaskFailed
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.models.artefacts import BACKUP, MAX_REFERENCES, REFERENCE
from sdapi.portrait.photos import PhotoFetcher
from sdapi.portrait.training import ranking
from sdapi.portrait.training.photos.study import Studied, cut_person, cut_scene, study
from sdapi.portrait.training.ranking import MAX_TRAINED, FaceLook
from sdapi.portrait.training.work_folder import Prepared, WorkFolder, as_kept

_METADATA: Final = "metadata.jsonl"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Photo:
    """What was seen in a photo, and where it is kept; None where it cannot be decoded."""

    seen: Studied
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """Fetches photos, chooses among them, and cuts out what is learnt."""

    photos: PhotoFetcher
    processes: FaceProcesses
    work: WorkFolder
    crop: float

    async def person(self, urls: Sequence[str], caption: str) -> Prepared:
        """Of one person; raises PortraitError, OSError."""
        photos = await self._studied(urls)
        faces = [one for one in photos if one.seen.look is not None]
        if not faces:
            raise PortraitError(faults.IMAGES_UNUSABLE)
        first = faces[0].seen
        looks = [one.seen.look for one in faces if one.seen.look is not None]
        alike = ranking.likenesses(looks, first.metric)
        await anyio.to_thread.run_sync(self._keep_references, faces, looks, alike)
        chosen = [faces[index] for index in ranking.best_first(alike)[:MAX_TRAINED]]
        crops = [await self._cut_person(one) for one in chosen]
        kept = [(one, crop) for one, crop in zip(chosen, crops, strict=True) if crop is not None]
        if not kept:
            raise PortraitError(faults.IMAGES_UNUSABLE)
        named = await anyio.to_thread.run_sync(
            self._keep_crops, [(crop, caption) for _, crop in kept]
        )
        vectors = [one.seen.look.embedding for one, _ in kept if one.seen.look is not None]
        return Prepared(
            states=_states(urls, photos),
            crops=named,
            embeddings=as_kept(vectors),
            metric=first.metric,
            providers=first.providers,
        )

    async def scene(self, urls: Sequence[str], captions: Sequence[str]) -> Prepared:
        """Of a scene, a caption for each photo; raises PortraitError, OSError."""
        photos = await self._studied(urls)
        crops: list[tuple[bytes, str]] = []
        for photo, caption in zip(photos, captions, strict=True):
            if (crop := await self._cut_scene(photo)) is not None:
                crops.append((crop, caption))
        if not crops:
            raise PortraitError(faults.IMAGES_UNUSABLE)
        named = await anyio.to_thread.run_sync(self._keep_crops, crops)
        await anyio.Path(self.work.model, REFERENCE).write_bytes(crops[0][0])
        return Prepared(states=_states(urls, photos), crops=named)

    async def _studied(self, urls: Sequence[str]) -> list[_Photo]:
        """Every photo looked at; those that can be decoded are kept in the backup."""
        backup = self.work.model / BACKUP
        await anyio.to_thread.run_sync(partial(backup.mkdir, mode=0o700))
        photos = [_Photo(Studied(Looked(Code.NOT_DECODED)))] * len(urls)

        async def look(index: int, url: str) -> None:
            seen, file = await self._study(url), backup / f"{index}.jpg"
            photos[index] = await anyio.to_thread.run_sync(_kept, seen, file)

        await self.photos.each(urls, look)
        if not any(photo.file is not None for photo in photos):
            raise PortraitError(faults.IMAGES_UNUSABLE)
        return await anyio.to_thread.run_sync(_numbered, photos)

    async def _study(self, url: str) -> Studied:
        try:
            data = await self.photos.get(url)
        except BadUrl as error:
            log.info("a training photo cannot be fetched: %s", error)
            return Studied(Looked(Code.NOT_DECODED))
        try:
            return await self.processes.run(study, data)
        except FaceTaskFailed:
            return Studied(Looked(Code.NOT_DETECTED))

    async def _cut_person(self, photo: _Photo) -> bytes | None:
        if photo.file is None or photo.seen.box is None:
            return None
        jpeg = await anyio.Path(photo.file).read_bytes()
        try:
            return await self.processes.run(cut_person, jpeg, photo.seen.box, self.crop)
        except FaceTaskFailed:
            return None

    async def _cut_scene(self, photo: _Photo) -> bytes | None:
        if photo.file is None:
            return None
        jpeg = await anyio.Path(photo.file).read_bytes()
        try:
            return await self.processes.run(cut_scene, jpeg, self.crop)
        except FaceTaskFailed:
            return None

    def _keep_references(
        self, faces: Sequence[_Photo], looks: Sequence[FaceLook], alike: Sequence[float]
    ) -> None:
        """The best photo whole, and the next ones with what tells their poses."""
        pairs = zip(looks, alike, strict=True)
        order = ranking.best_first([ranking.reference_score(look, one) for look, one in pairs])
        best, described = faces[order[0]].file, faces[order[0]].seen.reference
        assert best is not None  # what has a look has been decoded
        assert described is not None  # and described
        shutil.copyfile(best, self.work.artefacts.reference)
        self.work.artefacts.write_reference_face(described)
        for number, index in enumerate(order[1 : 1 + MAX_REFERENCES]):
            file, reference = faces[index].file, faces[index].seen.reference
            if file is not None and reference is not None:
                self.work.artefacts.write_reference(number, file.read_bytes(), reference)

    def _keep_crops(self, crops: Sequence[tuple[bytes, str]]) -> tuple[tuple[str, str], ...]:
        folder = self.work.crops
        folder.mkdir(mode=0o700, parents=True)
        named = [(f"{number}.jpg", caption) for number, (_, caption) in enumerate(crops)]
        for (name, _), (data, _) in zip(named, crops, strict=True):
            (folder / name).write_bytes(data)
        for name, caption in named:
            (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")
        lines = [json.dumps({"file_name": n, "text": c}, ensure_ascii=False) for n, c in named]
        (folder / _METADATA).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tuple(named)


def _kept(seen: Studied, file: Path) -> _Photo:
    """The photo written down, and no longer held."""
    if seen.jpeg is None:
        return _Photo(seen)
    file.write_bytes(seen.jpeg)
    return _Photo(replace(seen, jpeg=None), file)


def _numbered(photos: Sequence[_Photo]) -> list[_Photo]:
    """The files called 0.jpg and on, without gaps where photos could not be decoded."""
    numbers = count()

    def renamed(photo: _Photo) -> _Photo:
        if photo.file is None:
            return photo
        file = photo.file.with_name(f"{next(numbers)}.jpg")
        return replace(photo, file=photo.file.rename(file))

    return [renamed(photo) for photo in photos]


def _states(urls: Sequence[str], photos: Sequence[_Photo]) -> tuple[dict[str, object], ...]:
    """The photos' check results, strangers marked, as the REST surface tells them."""
    looked = mark_strangers([one.seen.checked for one in photos])
    results = (
        PhotoResult(u, one.code, one.is_frontal) for u, one in zip(urls, looked, strict=True)
    )
    return tuple(result.for_rest() for result in results)
