"""POST /sdapi/v1/txt2img and /img2img."""

import logging
import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from sdapi.errors import SDAPIError
from sdapi.problems import error_headers, json_response, url_failure, url_pending
from sdapi.routes import ServicesDep, caller_of
from sdapi.schemas.generation import GenerationResponse, Img2ImgRequest, Txt2ImgRequest
from sdapi.schemas.problems import problems
from sdapi.services.container import Services
from sdapi.services.generation.answering.url_mode import UrlPending
from sdapi.services.scripts.script import Kind

log = logging.getLogger(__name__)
router = APIRouter(prefix="/sdapi/v1", tags=["generation"])
_PROBLEMS = problems(400, 403, 404, 409, 429, 501, 503, 507)


@router.post("/txt2img", response_model=GenerationResponse, responses=_PROBLEMS)
async def txt2img(body: Txt2ImgRequest, request: Request, services: ServicesDep) -> Response:
    """Draw pictures from a prompt.

    `alwayson_scripts` also takes the EAS keys `sd_model_checkpoint`, `sd_vae`, `save_dir`,
    `id_task` and `uid`. The header `X-SDAPI-Webhook` names a URL that is told when the task is
    over.
    """
    return await _generate("txt2img", body, request, services)


@router.post("/img2img", response_model=GenerationResponse, responses=_PROBLEMS)
async def img2img(body: Img2ImgRequest, request: Request, services: ServicesDep) -> Response:
    """Draw pictures from a prompt and a picture.

    `alwayson_scripts.image_link` may name the picture by URL.
    """
    return await _generate("img2img", body, request, services)


async def _generate(
    kind: Kind, body: Txt2ImgRequest | Img2ImgRequest, request: Request, services: Services
) -> Response:
    save_dir = body.alwayson_scripts.get("save_dir")
    caller = caller_of(request, services)
    if not isinstance(save_dir, str):
        return json_response(await services.generation.answer(kind, body, caller))
    id_task = body.alwayson_scripts.get("id_task")
    id_task = id_task if isinstance(id_task, str) else None
    started = time.monotonic()
    try:
        return json_response(await services.generation.answer(kind, body, caller))
    except UrlPending as error:
        return url_pending(error)
    except SDAPIError as error:
        headers = error_headers(error)
        return url_failure(error.sentence, error.status, id_task, headers, _since(started))
    except Exception as error:
        log.exception("request failed in URL mode")
        return url_failure(type(error).__name__, 500, id_task, total_time_s=_since(started))


def _since(started: float) -> float:
    return time.monotonic() - started
