"""The REST surface: what each signed call does, in the order of checks that clients rely on.

AppId, signature, route and model name, quota, body, work. Every answer is an envelope; its status
tells success from failure, as clients look at nothing else.
"""

import base64
import io
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio.to_thread
from PIL import Image

from sdapi.errors import SDAPIError
from sdapi.portrait import faults
from sdapi.portrait.checking import Checker
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.handlers import Handlers, trained_models
from sdapi.portrait.models.folders import ModelFolders
from sdapi.portrait.models.removal import remove_model
from sdapi.portrait.state.records import Account, Job, NewJob, owner_of
from sdapi.portrait.state.store import PortraitStore
from sdapi.portrait.surfaces.accounts import Accounts, SignedCall
from sdapi.portrait.wire import requests
from sdapi.portrait.wire.jobs import job_on_wire
from sdapi.portrait.wire.literal import LiteralError, parse_body
from sdapi.services.unbroken import to_its_end

JPEG_QUALITY: Final = 95
_JOB_ID: Final = re.compile(r"[0-9]{1,10}")
_MAX_JOB_ID: Final = (1 << 31) - 1
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and the envelope."""

    status: int
    body: dict[str, Any]
    #: when to ask again, where that helps
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    """A verified request: who asks, the id it gets, its last path segment and its body."""

    account: Account
    request_id: str
    name: str
    #: None where the body is no JSON object
    body: Mapping[str, Any] | None

    @property
    def owner(self) -> str:
        return owner_of(self.account.app_id)

    def required_body(self, fault: faults.Fault) -> Mapping[str, Any]:
        if self.body is None:
            raise PortraitError(fault)
        return self.body


class RestApi:
    """Answers the calls below `/api/v1`."""

    def __init__(
        self,
        store: PortraitStore,
        checker: Checker,
        folders: ModelFolders,
        handlers: Handlers,
        *,
        on_job: Callable[[], None],
        is_corrected: bool,
    ) -> None:
        self._store = store
        self._accounts = Accounts(store)
        self._checker = checker
        self._folders = folders
        self._handlers = handlers
        self._on_job = on_job
        self._is_corrected = is_corrected
        post, get = ("POST",), ("GET",)
        self._routes: list[_Route] = [
            (post, re.compile(r"/api/v1/aigc_images/(check)"), self._check),
            (post, re.compile(r"/api/v1/aigc_images/(train)"), self._train),
            (post, re.compile(r"/api/v1/aigc_images/(create)"), self._create),
            ((*post, *get), re.compile(r"/api/v1/async_jobs/([^/]+)"), self._job),
            (get, re.compile(r"(?:/api/v1)?/batch_jobs/([^/]+)"), self._batch_job),
            (("DELETE",), re.compile(r"/api/v1/models/([^/]+)"), self._delete_model),
        ]

    async def answer(self, call: SignedCall) -> Answer:
        """The answer to a request; never raises."""
        request_id = str(uuid.uuid4())
        try:
            data = await self._serve(call, request_id)
        except PortraitError as error:
            message = error.fault.message(is_corrected=self._is_corrected)
            return _envelope(request_id, error.fault.status, error.fault.code, message)
        except SDAPIError as error:
            return refused(error, request_id)
        except Exception as error:
            log.exception("portrait call failed: %s %s", call.method, call.path)
            return _envelope(request_id, 500, "error", type(error).__name__)
        return _envelope(request_id, 200, "OK", "success", data)

    async def _serve(self, call: SignedCall, request_id: str) -> dict[str, Any]:
        account = await self._accounts.find(call.authorization)
        self._accounts.verify(account, call)
        for methods, pattern, serve in self._routes:
            if call.method in methods and (found := pattern.fullmatch(call.path)):
                return await serve(_Call(account, request_id, found[1], _object_in(call.body)))
        raise PortraitError(faults.MODEL_UNKNOWN)

    async def _check(self, call: _Call) -> dict[str, Any]:
        if _model_name(call) != "":
            raise PortraitError(faults.MODEL_UNKNOWN)
        async with self._accounts.counted(call.account):
            urls = requests.image_urls(call.required_body(faults.INVALID_INPUT))
            checked = await self._checker.check(urls, same_person=True)
        return {
            "check_results": [photo.for_rest() for photo in checked.photos],
            "cost_time": checked.cost_time_s,
            "images": list(urls),
            "request_id": call.request_id,
        }

    async def _train(self, call: _Call) -> dict[str, Any]:
        is_xl = _is_xl(call, "train_xl")
        trainer = self._handlers.trainer
        if trainer is None or not await trainer.can_train(is_xl=is_xl):
            raise PortraitError(faults.MODEL_UNKNOWN)
        # Whole, though its caller leaves: a job that is there has been counted.
        job = await to_its_end(self._add_job(call, is_xl=is_xl))
        return {"job_id": job.id, "model_id": job.model_id}

    async def _add_job(self, call: _Call, *, is_xl: bool) -> Job:
        async with self._accounts.counted(call.account):
            body = call.required_body(faults.INVALID_INPUT)
            request = requests.rest_train(body, is_xl=is_xl)
            job = await self._store.add_job(
                NewJob(call.owner, str(uuid.uuid4()), request.to_json(), call.account.app_id)
            )
        self._on_job()
        return job

    async def _create(self, call: _Call) -> dict[str, Any]:
        is_xl = _is_xl(call, "create_xl")
        creator = self._handlers.creator
        if creator is None or not await creator.can_create(is_xl=is_xl):
            raise PortraitError(faults.MODEL_UNKNOWN)
        async with self._accounts.counted(call.account):
            started = time.perf_counter()
            body = call.required_body(faults.INVALID_CREATE)
            request = requests.rest_create(body, is_xl=is_xl)
            models = await trained_models(self._store, call.owner, request)
            created = await creator.create(models, request)
            image = await anyio.to_thread.run_sync(_jpeg_text, created.image)
        data = {
            "cost_time": time.perf_counter() - started,
            "image": image,
            "model_id": ",".join(request.model_ids),
        }
        warnings = [*request.warnings, *created.warnings]
        return {**data, "warnings": warnings} if warnings else data

    async def _job(self, call: _Call) -> dict[str, Any]:
        number = int(call.name) if _JOB_ID.fullmatch(call.name) else 0
        job = await self._store.job(call.owner, number) if number <= _MAX_JOB_ID else None
        if job is None:
            raise PortraitError(faults.JOB_UNKNOWN)
        return {"job": job_on_wire(job, call.account.app_id)}

    async def _batch_job(self, call: _Call) -> dict[str, Any]:
        """Batches belong to other abilities of these SDKs; there are none here."""
        raise PortraitError(faults.JOB_UNKNOWN)

    async def _delete_model(self, call: _Call) -> dict[str, Any]:
        """Remove a model with its jobs and every file that was kept for it."""
        model_id = call.name
        if not requests.is_model_id(model_id):
            raise PortraitError(faults.MODEL_UNKNOWN)
        if not await remove_model(self._store, self._folders, call.owner, model_id):
            raise PortraitError(faults.MODEL_UNKNOWN)
        return {"model_id": model_id}


_Route = tuple[tuple[str, ...], "re.Pattern[str]", Callable[[_Call], Awaitable[dict[str, Any]]]]


def refused(error: SDAPIError, request_id: str | None = None) -> Answer:
    """The answer to a call that has failed for a reason of the server's."""
    failed = _envelope(request_id or str(uuid.uuid4()), error.status, "error", error.detail)
    return replace(failed, retry_after_s=error.retry_after_s)


def too_large() -> Answer:
    """The answer to a body that is not read to its end."""
    fault = faults.BODY_TOO_LARGE
    return _envelope(str(uuid.uuid4()), fault.status, fault.code, fault.text)


def _envelope(
    request_id: str, status: int, code: str, message: str, data: dict[str, Any] | None = None
) -> Answer:
    body = {"request_id": request_id, "code": code, "message": message, "data": data or {}}
    return Answer(status, body)


def _object_in(body: bytes) -> Mapping[str, Any] | None:
    try:
        return parse_body(body, is_tolerant=False)
    except LiteralError:
        return None


def _model_name(call: _Call) -> Any:
    """The model that a body names; the first one where it cannot be read, which is told later."""
    name = None if call.body is None else call.body.get("model_name")
    return "" if name is None else name


def _is_xl(call: _Call, xl_name: str) -> bool:
    """Which base a call asks for; raises PortraitError unless the account may use it."""
    name = _model_name(call)
    base = {"": "sd15", xl_name: "xl"}.get(name) if isinstance(name, str) else None
    if base not in call.account.models:
        raise PortraitError(faults.MODEL_UNKNOWN)
    return base == "xl"


def _jpeg_text(image: Image.Image) -> str:
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return base64.b64encode(data.getvalue()).decode("ascii")
