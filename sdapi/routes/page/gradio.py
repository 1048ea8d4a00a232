"""Routes of the webui's page that programs call, too; there with the page only.

Files and who is logged in are real. The Gradio protocol itself is not spoken: 501.
Contract: webui-api 16.
"""

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Form, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from sdapi.errors import BadRequest, NotBuilt, Unauthorized
from sdapi.routes import ServicesDep
from sdapi.security.sessions import SESSION_COOKIE
from sdapi.services.container import Services
from sdapi.services.page_files import find_page_file

router = APIRouter(tags=["page"])


class WrongLogin(BadRequest):
    """A name or password of the page's login that is not right."""

    status, code = 400, "wrong_login"


@router.get("/file={path:path}", response_class=Response)
async def file(path: str, services: ServicesDep) -> Response:
    """A file below an allowed folder; a URL is redirected to. Byte ranges are honoured."""
    if path.startswith(("http://", "https://")):
        return RedirectResponse(path, status_code=302)
    found = await anyio.to_thread.run_sync(find_page_file, path, services.settings)
    return FileResponse(found)


@router.get("/token")
async def token(request: Request, services: ServicesDep) -> dict[str, str | None]:
    """The session of the caller and its user."""
    return {"token": request.cookies.get(SESSION_COOKIE), "user": _user_of(request, services)}


@router.get("/user")
@router.get("/user/", include_in_schema=False)
async def user(request: Request, services: ServicesDep) -> str | None:
    """The caller's user name."""
    return _user_of(request, services)


@router.get("/app_id")
async def app_id(services: ServicesDep) -> dict[str, int]:
    """A number that is another one after each start."""
    return {"app_id": services.app_id}


@router.get("/login_check")
@router.get("/login_check/", include_in_schema=False)
async def login_check(request: Request, services: ServicesDep) -> None:
    """401 unless the caller is logged in, or needs not be."""
    if not services.credentials.is_open and _user_of(request, services) is None:
        raise Unauthorized("Not authenticated")


@router.post("/login", response_model=None)
async def login(
    services: ServicesDep, username: Annotated[str, Form()], password: Annotated[str, Form()]
) -> Response | dict[str, bool]:
    """Log in with a name of `--api-auth`; the cookie then stands for it."""
    if services.credentials.is_open:
        return RedirectResponse("/", status_code=302)
    session = services.credentials.log_in(username, password)
    if session is None:
        raise WrongLogin("Incorrect credentials.")
    response = Response('{"success":true}', media_type="application/json")
    response.set_cookie(SESSION_COOKIE, session, httponly=True, samesite="strict")
    return response


@router.get("/queue/status")
async def queue_status(services: ServicesDep) -> dict[str, Any]:
    """How many jobs wait, in Gradio's words."""
    waiting = services.scheduler.depth
    return {
        "msg": "estimation",
        "rank": None,
        "queue_size": waiting,
        "avg_event_process_time": services.tasks.mean_duration_s,
        "avg_event_concurrent_process_time": None,
        "rank_eta": None,
        "queue_eta": services.tasks.mean_duration_s * waiting + 1.0,
    }


@router.get("/startup-events")
async def startup_events() -> bool:
    """Gradio's queue, which is not used, has not started."""
    return False


def _user_of(request: Request, services: Services) -> str | None:
    named = services.credentials.user_of(request.headers.get("authorization"))
    return named or services.credentials.user_of_cookies(request.headers.get("cookie"))


async def _gradio() -> None:
    """The Gradio protocol is not spoken here; use /sdapi/v1."""
    raise NotBuilt(
        "the Gradio protocol is not spoken here; use the API under /sdapi/v1, or a queue, whose "
        "address is /api/predict/<service>"
    )


for _path in ("/config", "/info", "/theme.css"):
    router.add_api_route(_path, _gradio, methods=["GET"], include_in_schema=False)
for _path in ("/run/{api_name}", "/api/{api_name}", "/upload"):
    router.add_api_route(_path, _gradio, methods=["POST"], include_in_schema=False)
