"""URL mode: a request's pictures as files under its `save_dir`, all or none (design section 4)."""

import datetime
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from PIL import Image

from sdapi.errors import UploadPending
from sdapi.images import encode_png
from sdapi.services.storage.new_files import NewFile
from sdapi.services.storage.places import Place
from sdapi.services.storage.storage import Storage, Stored

#: where maps that ControlNet units detected go
MAP_FOLDER = "controlnet_mask"


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A picture and its place: `<save_dir>/<folder>/<date>/<stem>.png`."""

    folder: str
    stem: str
    image: Image.Image
    infotext: str | None = None

    @property
    def texts(self) -> dict[str, str]:
        """What the file tells of the picture."""
        return {} if self.infotext is None else {"parameters": self.infotext}


@dataclass(frozen=True, slots=True)
class UrlFiles:
    """Where a request's pictures are, and its masks (ControlNet's detected maps)."""

    images: Stored = field(default_factory=Stored)
    masks: Stored = field(default_factory=Stored)


class UrlPending(UploadPending):
    """The pictures are stored and named, and their store has not got them all yet."""

    def __init__(self, detail: str, body: dict[str, Any]) -> None:
        super().__init__(detail)
        #: URL mode's answer, with the pictures' names
        self.body = body


def grid_stem() -> str:
    """`grid-<uuid4>`, the name of a request's grid."""
    return f"grid-{uuid.uuid4()}"


def image_stem(seed: int) -> str:
    """`<uuid4>-<seed>`, the name of a picture."""
    return f"{uuid.uuid4()}-{seed}"


def map_stem() -> str:
    """`<uuid4>`, the name of a detected map."""
    return str(uuid.uuid4())


async def write_all(
    storage: Storage,
    place: Place,
    images: Sequence[NamedImage],
    masks: Sequence[NamedImage] = (),
) -> UrlFiles:
    """Write every picture and mask, all or none, and upload them where the place says so.

    Raises `StorageFailed`, with nothing left.
    """
    date = datetime.date.today().isoformat()
    files = [
        NewFile(
            f"{each.folder}/{date}/{each.stem}.png",
            partial(encode_png, each.image, each.texts),
        )
        for each in (*images, *masks)
    ]
    stored = await storage.write(place, files)
    count = len(images)
    return UrlFiles(
        replace(stored, urls=stored.urls[:count], signed=stored.signed[:count]),
        replace(stored, urls=stored.urls[count:], signed=stored.signed[count:]),
    )


def answer(
    *,
    id_task: str | None,
    status: int = 0,
    files: UrlFiles | None = None,
    seeds: Sequence[int] = (),
    error: str = "",
    warnings: Sequence[str] = (),
    total_time_s: float = 0.0,
) -> dict[str, Any]:
    """The body of URL mode, for success (status 0) and failure (the HTTP status) alike.

    `image_mask_url` is there with masks, `signed_url` and `signed_mask_url` with links, `warnings`
    where there are some.
    """
    files = files or UrlFiles()
    told = [*warnings, *files.images.warnings]
    lists = {
        "image_mask_url": files.masks.urls,
        "signed_url": files.images.signed,
        "signed_mask_url": files.masks.signed,
    }
    return {
        "images": [],
        "parameters": {
            "id_task": id_task,
            "status": status,
            "image_url": ",".join(files.images.urls),
            "seed": ",".join(str(seed) for seed in seeds),
            "error_msg": error,
            "total_time": total_time_s,
            **{key: ",".join(urls) for key, urls in lists.items() if urls},
        },
        "info": "",
        **({"warnings": told} if told else {}),
    }


def finished(
    *,
    id_task: str | None,
    files: UrlFiles,
    seeds: Sequence[int],
    warnings: Sequence[str],
    total_time_s: float,
) -> dict[str, Any]:
    """The answer to a request whose files are written.

    Raises `UrlPending` when they are not all uploaded.
    """
    if not files.images.pending:
        return answer(
            id_task=id_task,
            files=files,
            seeds=seeds,
            warnings=warnings,
            total_time_s=total_time_s,
        )
    sentence = (
        "the pictures are stored, upload pending: the server delivers them to the object store "
        f"later. {files.images.pending}"
    )
    body = answer(
        id_task=id_task,
        status=UploadPending.status,
        files=files,
        seeds=seeds,
        error=sentence,
        warnings=warnings,
        total_time_s=total_time_s,
    )
    raise UrlPending(sentence, body)
