"""The portrait routes: the REST surface as it comes over the wire, and the status page."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from sdapi.errors import ShuttingDown
from sdapi.portrait.portrait import Portrait
from sdapi.portrait.surfaces.accounts import SignedCall
from sdapi.portrait.surfaces.callers import unless_gone
from sdapi.portrait.surfaces.rest import Answer, refused, too_large
from sdapi.portrait.wire.literal import MAX_BYTES
from sdapi.problems import json_response

_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]
#: below these the signature is the only credential, and every answer an envelope
SIGNED_PREFIXES: Final = ("/api/v1/", "/batch_jobs/")


def portrait_router(portrait: Portrait) -> APIRouter:
    """Mount it after routers with paths of their own below `/api/v1`: it answers all others."""
    router = APIRouter(tags=["portrait"])

    @router.get("/portrait/status")
    async def status() -> dict[str, Any]:
        """Which face providers are in use, with their licences, and what can be asked for."""
        return await portrait.status()

    @router.delete("/portrait/users/{user_id}")
    async def delete_user(user_id: str) -> dict[str, str]:
        """Delete what was trained for a user of the queue's services, and every photo of theirs."""
        await portrait.delete_user(user_id)
        return {"user_id": user_id}

    async def signed(request: Request) -> Response:
        if request.app.state.is_stopping:
            return _response(refused(ShuttingDown("the server is shutting down")))
        body = await _body(request)
        if body is None:
            return _response(too_large())
        return await unless_gone(request, answered(_call(request, body)))

    async def answered(call: SignedCall) -> Response:
        return _response(await portrait.rest.answer(call))

    for prefix in SIGNED_PREFIXES:
        path = f"{prefix}{{rest:path}}"
        router.add_api_route(path, signed, methods=_METHODS, include_in_schema=False)
    return router


def _call(request: Request, body: bytes) -> SignedCall:
    """What a signature covers: the path as sent, without the prefix this server is mounted at."""
    root = request.scope.get("root_path", "").encode()
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    if root and path.startswith(root + b"/"):
        path = path[len(root) :]
    return SignedCall(
        request.headers.get("authorization", ""),
        request.method,
        path.decode("latin-1"),
        request.scope["query_string"].decode("latin-1"),
        body,
    )


async def _body(request: Request) -> bytes | None:
    """The body; None where it is larger than any call needs, and the rest stays unread."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BYTES:
            return None
    return bytes(data)


def _response(answer: Answer) -> Response:
    again_s = answer.retry_after_s
    headers = None if again_s is None else {"retry-after": str(again_s)}
    return json_response(answer.body, answer.status, headers)
