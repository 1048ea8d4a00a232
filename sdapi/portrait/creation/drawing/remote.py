"""Passes drawn by another server of the webui API (`URL` and `AUTHORIZATION`, contract 1.7)."""

import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import anyio.to_thread

from sdapi.portrait.creation.drawing.passes import Drawn, Pass
from sdapi.portrait.creation.drawing.webui import (
    DrawingFailed,
    Inventory,
    UnitsRefused,
    body_of,
    kind_of,
    picture_of,
    pixels_of,
    png_text,
)
from sdapi.portrait.faces.face import Pixels
from sdapi.portrait.models.folders import LORA_MARK
from sdapi.services.catalog.model_files.weight_file import problem_of
from sdapi.services.jobs.telling.cut_short import INTERRUPTED

if TYPE_CHECKING:  # httpx takes a while to import, and most servers draw for themselves
    import httpx

#: of one pass; a large picture on a slow card takes minutes
PASS_TIMEOUT_S: Final = 600.0
_LIST_TIMEOUT_S: Final = 20.0
_CONNECT_TIMEOUT_S: Final = 10.0
#: the value that stands for no credential
_NO_CREDENTIAL: Final = "="
_REFUSED: Final = (400, 404, 422)
_TASK = "/sdapi/v1/task"
_LORAS, _REFRESH = "/sdapi/v1/loras", "/sdapi/v1/refresh-loras"
log = logging.getLogger(__name__)


class RemoteDrawer:
    """Draws by HTTP; the operator's address, so it may be a private one."""

    def __init__(self, url: str, authorization: str, timeout_s: float = PASS_TIMEOUT_S) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        has_credential = authorization not in ("", _NO_CREDENTIAL)
        self._headers = {"Authorization": authorization} if has_credential else {}

    async def draw(self, asked: Pass) -> Drawn:
        """The answer says nothing of an interrupt, so the server is asked for it."""
        body = await anyio.to_thread.run_sync(body_of, asked)
        id_task = f"portrait-{uuid.uuid4()}"
        body["force_task_id"] = id_task
        answer = await self._asked("POST", f"/sdapi/v1/{kind_of(asked)}", body)
        drawn = await anyio.to_thread.run_sync(picture_of, answer)
        if not await self._was_interrupted(id_task):
            return drawn
        return replace(drawn, warnings=(*drawn.warnings, INTERRUPTED))

    async def _was_interrupted(self, id_task: str) -> bool:
        """Whether a pass was; False where that cannot be told: a web UI knows no task by its id.

        What a web UI shows of its last job is not asked for: it may be another client's.
        """
        with suppress(DrawingFailed):
            task = await self._asked("GET", f"{_TASK}?id_task={id_task}", None, _LIST_TIMEOUT_S)
            return isinstance(task, dict) and task.get("state") == "cancelled"
        return False

    async def improve(self, rgb: Pixels, fields: Mapping[str, Any]) -> Pixels:
        text = await anyio.to_thread.run_sync(png_text, rgb)
        answer = await self._asked(
            "POST", "/sdapi/v1/extra-single-image", {**fields, "image": text}
        )
        image = cast("dict[str, Any]", answer).get("image") if isinstance(answer, dict) else None
        return await anyio.to_thread.run_sync(pixels_of, image)

    async def lora(self, name: str, file: Path) -> str | None:
        """The other server looks into its folders again for a name that it does not list.

        Its file is the model's own, so that one which is broken here is broken there.
        """
        problem = await anyio.to_thread.run_sync(lambda: file.is_file() and problem_of(file))
        if problem:
            log.warning("portrait: the LoRA %s cannot be used: %s", file, problem)
            return None
        return name if await self._has_lora(name) else None

    async def _has_lora(self, name: str) -> bool:
        try:
            if await self._lists_lora(name):
                return True
            with suppress(DrawingFailed):
                await self._asked("POST", _REFRESH, None, timeout_s=_LIST_TIMEOUT_S)
            return await self._lists_lora(name)
        except DrawingFailed as error:
            log.info("the LoRAs of the other server are not to be had: %s", error)
            return True

    async def _lists_lora(self, name: str) -> bool:
        listed = await self._asked("GET", _LORAS, None, timeout_s=_LIST_TIMEOUT_S)
        return name in _texts(listed, "name") + _texts(listed, "alias")

    async def inventory(self) -> Inventory:
        found: dict[str, Any] = {}

        async def look(path: str) -> None:
            try:
                found[path] = await self._asked("GET", path, None, timeout_s=_LIST_TIMEOUT_S)
            except DrawingFailed as error:
                log.info("%s is not to be had: %s", path, error)

        paths = "/controlnet/model_list", _LORAS, "/sdapi/v1/upscalers"
        async with anyio.create_task_group() as group:
            for path in paths:
                group.start_soon(look, path)
        control, loras, upscalers = (found.get(path) for path in paths)
        names = cast("dict[str, Any]", control).get("model_list", []) if control else []
        return Inventory(
            tuple(str(name) for name in names),
            style_loras=None if loras is None else _style_loras(loras),
            restorers=(),  # a webui lists them whether it has their files or not
            upscalers=tuple(
                name
                for name, path in zip(
                    _texts(upscalers, "name"), _texts(upscalers, "model_path"), strict=False
                )
                if path
            ),
        )

    async def _asked(
        self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float | None = None
    ) -> object:
        """The answer's JSON; raises DrawingFailed."""
        import httpx

        limit_s = timeout_s or self._timeout_s
        try:
            with anyio.fail_after(limit_s):
                timeouts = httpx.Timeout(limit_s, connect=_CONNECT_TIMEOUT_S)
                async with httpx.AsyncClient(timeout=timeouts, headers=self._headers) as client:
                    response = await client.request(method, self._url + path, json=body)
                    return self._read(response)
        except TimeoutError as error:
            raise DrawingFailed(f"no answer within {limit_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DrawingFailed(f"{type(error).__name__}: {error}") from error

    def _read(self, response: "httpx.Response") -> object:
        if response.status_code != 200:
            text = f"status {response.status_code}: {response.text[:300]}"
            raise (UnitsRefused if response.status_code in _REFUSED else DrawingFailed)(text)
        try:
            return response.json()
        except ValueError as error:
            raise DrawingFailed("the answer is no JSON") from error


def _style_loras(listing: object) -> frozenset[str]:
    """Names of the LoRAs that are nobody's."""
    entries = cast("list[object]", listing) if isinstance(listing, list) else []
    rows = [cast("dict[str, Any]", entry) for entry in entries if isinstance(entry, dict)]
    styles = [row for row in rows if LORA_MARK not in (row.get("metadata") or {})]
    return frozenset(str(row.get(key) or "") for row in styles for key in ("name", "alias"))


def _texts(listing: object, key: str) -> list[str]:
    """One text of each entry; empty where an entry has none."""
    if not isinstance(listing, list):
        return []
    entries = cast("Sequence[object]", listing)
    rows = [cast("dict[str, Any]", entry) for entry in entries if isinstance(entry, dict)]
    return [str(row.get(key) or "") for row in rows]
