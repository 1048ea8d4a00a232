"""Faces of photos, looked for once: people and templates come again and again."""

import hashlib
from collections import OrderedDict
from typing import Final

import anyio.to_thread

from sdapi.portrait.creation import face_tasks
from sdapi.portrait.creation.face_tasks import Seen
from sdapi.portrait.creation.one_face import Choice, see_one
from sdapi.portrait.faces.face import USUAL, Face, Look
from sdapi.portrait.faces.processes import FaceProcesses

#: photos whose faces are remembered, at about 5 kB for each face
_REMEMBERED: Final = 512


class Sight:
    """Sees photos by a server's face processes. Belongs to the event loop."""

    def __init__(self, processes: FaceProcesses) -> None:
        self._processes = processes
        #: faces by the photo's SHA-256 and how closely it was looked at, the latest last
        self._known: OrderedDict[tuple[bytes, Look], tuple[Face, ...]] = OrderedDict()

    async def see(self, data: bytes, look: Look = USUAL) -> Seen | None:
        """A photo with its faces; None where it cannot be decoded. Raises FaceTaskFailed."""
        key = await anyio.to_thread.run_sync(_digest, data), look
        if (faces := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return await self._processes.run(face_tasks.see_again, data, faces)
        seen = await self._processes.run(face_tasks.see, data, look)
        if seen is not None:
            self._remember(key, seen.faces)
        return seen

    async def see_one(self, data: bytes, choice: Choice) -> Seen | None:
        """One face of a photo, cut out; None where there is none. Raises FaceTaskFailed."""
        key = await anyio.to_thread.run_sync(_digest, data), USUAL
        one = await self._processes.run(see_one, data, self._known.get(key), choice)
        if one is None:
            return None
        self._remember(key, one.faces)
        return one.seen

    def _remember(self, key: tuple[bytes, Look], faces: tuple[Face, ...]) -> None:
        self._known[key] = faces
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
