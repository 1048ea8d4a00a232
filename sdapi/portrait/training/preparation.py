"""Photos -> what is trained on, and what creation needs. Contract: portrait-pipeline 2.2."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from sdapi.errors import BadUrl
from sdapi.portrait import faults
from sdapi.portrait.artefacts import BACKUP, MAX_REFERENCES, REFERENCE
from sdapi.portrait.checking import Code, Looked, PhotoResult, mark_strangers
from sdapi.portrait.faces.processes import FaceProcesses, FaceTaskFailed
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.photos import HELD_BY_ONE, PhotoFetcher
from sdapi.portrait.training import ranking
from sdapi.portrait.training.ranking import MAX_TRAINED, FaceLook
from sdapi.portrait.training.study import Studied, cut_person, cut_scene, study
from sdapi.portrait.training.work_folder import Prepared, WorkFolder

_METADATA: Final = "metadata.jsonl"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preparation:
    """Fetches photos, chooses among them, and cuts out what is learnt."""

    photos: PhotoFetcher
    processes: FaceProcesses
    work: WorkFolder
    crop: float

    async def person(self, urls: Sequence[str], caption: str) -> Prepared:
        """Of one person; raises PortraitError, OSError."""
        studied = await self._studied(urls)
        seen = [one for one in studied if one.look is not None]
        if not seen:
            raise PortraitError(faults.IMAGES_UNUSABLE)
        looks = [one.look for one in seen if one.look is not None]
        alike = ranking.likenesses(looks, seen[0].metric)
        await anyio.to_thread.run_sync(self._keep_references, seen, looks, alike)
        chosen = [seen[index] for index in ranking.best_first(alike)[:MAX_TRAINED]]
        crops = [await self._cut_person(one) for one in chosen]
        kept = [(one, crop) for one, crop in zip(chosen, crops, strict=True) if crop is not None]
        if not kept:
            raise PortraitError(faults.IMAGES_UNUSABLE)
        named = await anyio.to_thread.run_sync(
            self._keep_crops, [(crop, caption) for _, crop in kept]
        )
        vectors = [one.look.embedding for one, _ in kept if one.look is not None]
        return Prepared(
            states=_states(urls, studied),
            crops=named,
            embeddings=tuple(tuple(float(value) for value in vector) for vector in vectors),
            metric=seen[0].metric,
            providers=seen[0].providers,
        )

    async def scene(self, urls: Sequence[str], captions: Sequence[str]) -> Prepared:
        """Of a scene, a caption for each photo; raises PortraitError, OSError."""
        studied = await self._studied(urls)
        crops: list[tuple[bytes, str]] = []
        for one, caption in zip(studied, captions, strict=True):
            if one.jpeg is not None and (crop := await self._cut_scene(one.jpeg)) is not None:
                crops.append((crop, caption))
        if not crops:
            raise PortraitError(faults.IMAGES_UNUSABLE)
        named = await anyio.to_thread.run_sync(self._keep_crops, crops)
        await anyio.Path(self.work.model, REFERENCE).write_bytes(crops[0][0])
        return Prepared(states=_states(urls, studied), crops=named)

    async def _studied(self, urls: Sequence[str]) -> list[Studied]:
        """Every photo looked at; those that can be decoded are kept in the backup."""
        backup = self.work.model / BACKUP
        await anyio.to_thread.run_sync(partial(backup.mkdir, mode=0o700))
        studied = [Studied(Looked(Code.NOT_DECODED))] * len(urls)
        few = anyio.Semaphore(HELD_BY_ONE)

        async def look(index: int, url: str) -> None:
            async with few, self.photos.held:
                studied[index] = await self._study(url)

        async with anyio.create_task_group() as group:
            for index, url in enumerate(urls):
                group.start_soon(look, index, url)
        readable = [one.jpeg for one in studied if one.jpeg is not None]
        if not readable:
            raise PortraitError(faults.IMAGES_UNUSABLE)
        await anyio.to_thread.run_sync(_write_numbered, backup, readable)
        return studied

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

    async def _cut_person(self, photo: Studied) -> bytes | None:
        if photo.jpeg is None or photo.box is None:
            return None
        try:
            return await self.processes.run(cut_person, photo.jpeg, photo.box, self.crop)
        except FaceTaskFailed:
            return None

    async def _cut_scene(self, jpeg: bytes) -> bytes | None:
        try:
            return await self.processes.run(cut_scene, jpeg, self.crop)
        except FaceTaskFailed:
            return None

    def _keep_references(
        self, seen: Sequence[Studied], looks: Sequence[FaceLook], alike: Sequence[float]
    ) -> None:
        """The best photo whole, and the next ones with what tells their poses."""
        pairs = zip(looks, alike, strict=True)
        order = ranking.best_first([ranking.reference_score(look, one) for look, one in pairs])
        best = seen[order[0]].jpeg
        assert best is not None  # what has a look has been decoded
        self.work.artefacts.reference.write_bytes(best)
        for number, index in enumerate(order[1 : 1 + MAX_REFERENCES]):
            jpeg, reference = seen[index].jpeg, seen[index].reference
            if jpeg is not None and reference is not None:
                self.work.artefacts.write_reference(number, jpeg, reference)

    def _keep_crops(self, crops: Sequence[tuple[bytes, str]]) -> tuple[tuple[str, str], ...]:
        folder = self.work.crops
        folder.mkdir(mode=0o700, parents=True)
        named = [(f"{number}.jpg", caption) for number, (_, caption) in enumerate(crops)]
        _write_numbered(folder, [data for data, _ in crops])
        for name, caption in named:
            (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")
        lines = [json.dumps({"file_name": n, "text": c}, ensure_ascii=False) for n, c in named]
        (folder / _METADATA).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tuple(named)


def _write_numbered(folder: Path, files: Sequence[bytes]) -> None:
    for number, data in enumerate(files):
        (folder / f"{number}.jpg").write_bytes(data)


def _states(urls: Sequence[str], studied: Sequence[Studied]) -> tuple[dict[str, object], ...]:
    """The photos' check results, strangers marked, as the REST surface tells them."""
    looked = mark_strangers([one.checked for one in studied])
    results = (
        PhotoResult(u, one.code, one.is_frontal) for u, one in zip(urls, looked, strict=True)
    )
    return tuple(result.for_rest() for result in results)
