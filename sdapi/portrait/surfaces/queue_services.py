"""The queue surface: three inference programs that answer `POST /`.

The queue's dispatcher calls them in process and puts their bodies into the sink, with the status
as `lastCode` when it is not 2xx.
"""

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sdapi.errors import SDAPIError
from sdapi.images import encode_png, to_base64
from sdapi.portrait import faults
from sdapi.portrait.checking import Checker
from sdapi.portrait.faults import Fault, PortraitError
from sdapi.portrait.handlers import Handlers, trained_models
from sdapi.portrait.state.records import QUEUE_OWNER
from sdapi.portrait.state.store import PortraitStore
from sdapi.portrait.surfaces.callers import unless_gone
from sdapi.portrait.wire import requests
from sdapi.portrait.wire.literal import MAX_BYTES, LiteralError, parse_body

CHECK: Final = "photog_check"
TRAIN: Final = "photog_train_pmml"
CREATE: Final = "photog_pre_pmml"

#: of a result's JSON, where the service does not say otherwise
SINK_BYTES: Final = 20480 << 10
#: below this a portrait is of no use: of its short side, in pixels
_USEFUL_SIDE: Final = 64
#: what holds any portrait of that size: three bytes a pixel in base64, and what is around it
USEFUL_SINK_BYTES: Final = _USEFUL_SIDE**2 * 4 + (2 << 10)
#: for what is only known when the picture fits: the time it took, and that it was scaled
_ROOM_BYTES: Final = 256
#: how much a side shrinks when a picture is too large for the sink
_SHRINK: Final = 0.85

#: for a store that is away when a training has ended
_STORE_PATIENCE_S, _RETRY_S = 300.0, 1.0

Body = Mapping[str, Any]
Work = Callable[[Body], Awaitable[dict[str, Any]]]
log = logging.getLogger(__name__)


class SinkTooSmall(SDAPIError):
    """A portrait that would have to be too small for any use to fit the output queue."""

    status, code = 413, "payload_too_large"


class QueueServices:
    """What the three services do with a request's body."""

    def __init__(
        self,
        store: PortraitStore,
        checker: Checker,
        handlers: Handlers,
        *,
        is_corrected: bool,
    ) -> None:
        self._store = store
        self._checker = checker
        self._handlers = handlers
        self._is_corrected = is_corrected

    def app(self, name: str, sink_bytes: int = SINK_BYTES) -> Starlette:
        """The ASGI application of a service of this usual name, whose sink takes so much."""
        create = partial(self._create, sink_bytes=sink_bytes)
        work, unreadable = {
            CHECK: (self._check, faults.INVALID_INPUT),
            TRAIN: (self._train, faults.INVALID_INPUT),
            CREATE: (create, faults.INVALID_CREATE),
        }[name]
        return self._app(work, unreadable)

    async def _check(self, body: Body) -> dict[str, Any]:
        same_person = requests.same_person_wanted(body)
        urls = requests.image_urls(body)
        checked = await self._checker.check(urls, same_person=same_person)
        results = [photo.for_queue() for photo in checked.photos]
        return {**body, "cost_time": checked.cost_time_s, "check_results": results}

    async def _train(self, body: Body) -> dict[str, Any]:
        started = time.perf_counter()
        user_id, request = requests.queue_train(body)
        trainer = self._handlers.trainer
        if trainer is None or not await trainer.can_train(is_xl=False):
            raise PortraitError(faults.MODEL_UNKNOWN)
        trained = await trainer.train(QUEUE_OWNER, user_id, request)
        await self._kept(user_id, trained.about)
        await trained.settle()
        return {"user_id": user_id, "cost_time": time.perf_counter() - started}

    async def _kept(self, user_id: str, about: Mapping[str, Any]) -> None:
        """Keep what a training has made, though the store may be away for a while."""
        end = time.monotonic() + _STORE_PATIENCE_S
        while True:
            try:
                await self._store.put_model(QUEUE_OWNER, user_id, about)
                return
            except SDAPIError as error:
                if time.monotonic() > end:
                    raise
                log.warning("the model of %s is not stored: %s", user_id, error)
                await anyio.sleep(_RETRY_S)

    async def _create(self, body: Body, *, sink_bytes: int) -> dict[str, Any]:
        started = time.perf_counter()
        request = requests.queue_create(body)
        creator = self._handlers.creator
        if creator is None or not await creator.can_create(is_xl=False):
            raise PortraitError(faults.MODEL_UNKNOWN)
        models = await trained_models(self._store, QUEUE_OWNER, request)
        created = await creator.create(models, request)
        warnings = [*request.warnings, *created.warnings]
        data = {"user_id": ",".join(request.model_ids), "image": "", "cost_time": 0.0}
        around = {**data, "warnings": warnings}
        request_id = requests.queue_request_id(body, faults.INVALID_CREATE)
        around_bytes = len(_content(request_id, "OK", "success", around)) + _ROOM_BYTES
        image, scaled = await anyio.to_thread.run_sync(
            _fitting_png_text, created.image, sink_bytes, around_bytes
        )
        data |= {"image": image, "cost_time": time.perf_counter() - started}
        warnings += scaled
        return {**data, "warnings": warnings} if warnings else data

    def _app(self, work: Work, unreadable: Fault) -> Starlette:
        async def serve(request: Request) -> Response:
            data = await _read(request)
            return await unless_gone(request, self._answer(data, work, unreadable))

        return Starlette(routes=[Route("/", serve, methods=["POST"])])

    async def _answer(self, data: bytes, work: Work, unreadable: Fault) -> Response:
        request_id = ""
        try:
            body = _parsed(data, unreadable)
            request_id = requests.queue_request_id(body, unreadable)
            result = await work(body)
        except PortraitError as error:
            message = error.fault.message(is_corrected=self._is_corrected)
            return _response(error.fault.status, request_id, "error", message, {})
        except SDAPIError as error:
            # What passes goes back to the queue: a dispatcher knows it by its header.
            again_s = error.retry_after_s
            headers = {} if again_s is None else {"retry-after": str(again_s)}
            return _response(error.status, request_id, "error", error.detail, {}, headers)
        except Exception as error:
            log.exception("a portrait service failed")
            return _response(500, request_id, "error", type(error).__name__, {})
        return _response(200, request_id, "OK", "success", result)


async def _read(request: Request) -> bytes:
    """The body; of one that is too large as much as tells so."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BYTES:
            break
    return bytes(data)


def _parsed(data: bytes, unreadable: Fault) -> Body:
    try:
        return parse_body(data, is_tolerant=True)
    except LiteralError as error:
        raise PortraitError(unreadable) from error


def _response(
    status: int,
    request_id: str,
    code: str,
    message: str,
    data: dict[str, Any],
    headers: Mapping[str, str] | None = None,
) -> Response:
    content = _content(request_id, code, message, data)
    return Response(content, status, headers, media_type="application/json")


def _content(request_id: str, code: str, message: str, data: Mapping[str, Any]) -> bytes:
    body = {"request_id": request_id, "code": code, "message": message, "data": data}
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell and UTF-8 cannot
        return json.dumps(body).encode()


def _fitting_png_text(
    image: Image.Image, sink_bytes: int, around_bytes: int
) -> tuple[str, tuple[str, ...]]:
    """The picture, scaled down until the sink can take it, and a sentence if it was.

    Raises `SinkTooSmall` rather than make it smaller than is of use.
    """
    text, whole = to_base64(encode_png(image)), image.size
    while len(text) + around_bytes > sink_bytes:
        short = min(image.size)
        if short <= _USEFUL_SIDE:
            raise SinkTooSmall(
                f"the portrait does not fit the output queue, which takes {sink_bytes} bytes, "
                f"even with a short side of {short} pixels; raise queue.sink.max_payload_size_kb "
                "in the service file (20480 is usual)"
            )
        scale = max(_SHRINK, _USEFUL_SIDE / short)
        size = round(image.width * scale), round(image.height * scale)
        image = image.resize(size, Image.Resampling.LANCZOS)
        text = to_base64(encode_png(image))
    if image.size == whole:
        return text, ()
    was, now = (f"{width}x{height}" for width, height in (whole, image.size))
    return text, (f"the picture is too large for the output queue: {was} became {now}",)
