"""POST /sdapi/v1/extra-single-image and /extra-batch-images, and what they can use."""

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from sdapi.engine.latents.latent_modes import LATENT_MODES
from sdapi.problems import json_response
from sdapi.routes import ServicesDep, caller_of
from sdapi.schemas.catalog import (
    FaceRestorerItem,
    LatentUpscalerModeItem,
    RealesrganItem,
    UpscalerItem,
)
from sdapi.schemas.extras import (
    ExtrasBatchImagesRequest,
    ExtrasBatchImagesResponse,
    ExtrasSingleImageRequest,
    ExtrasSingleImageResponse,
)
from sdapi.schemas.problems import problems
from sdapi.services.catalog.face_restorers import FACE_RESTORERS
from sdapi.services.catalog.upscalers import REALESRGAN_MODELS, USUAL_SCALE, Upscalers
from sdapi.services.extras import NamedPicture

router = APIRouter(prefix="/sdapi/v1", tags=["pictures"])
_PROBLEMS = problems(409, 429, 503, 507)


@router.post("/extra-single-image", response_model=ExtrasSingleImageResponse, responses=_PROBLEMS)
async def extra_single_image(
    body: ExtrasSingleImageRequest, request: Request, services: ServicesDep
) -> Response:
    """Enlarge a picture, and restore its faces."""
    caller = caller_of(request, services)
    return json_response(await services.extras.single(body, body.image, caller))


@router.post("/extra-batch-images", response_model=ExtrasBatchImagesResponse, responses=_PROBLEMS)
async def extra_batch_images(
    body: ExtrasBatchImagesRequest, request: Request, services: ServicesDep
) -> Response:
    """Enlarge pictures, and restore their faces; one result for each, in order."""
    sent = [
        NamedPicture(each.data, each.name, f"imageList.{i}.data")
        for i, each in enumerate(body.imageList)
    ]
    return json_response(await services.extras.batch(body, sent, caller_of(request, services)))


@router.get("/upscalers")
async def upscalers(services: ServicesDep) -> list[UpscalerItem]:
    """The filters, then the upscaler models that are on disk."""
    found = Upscalers(services.settings)
    files = await anyio.to_thread.run_sync(found.files)
    filters = [UpscalerItem(name=name, scale=USUAL_SCALE) for name in found.filters()]
    return filters + [
        UpscalerItem(
            name=file.name, model_name=file.model_name, model_path=str(file.path), scale=file.scale
        )
        for file in files
    ]


@router.get("/latent-upscale-modes")
async def latent_upscale_modes() -> list[LatentUpscalerModeItem]:
    """How hires fix can enlarge latents."""
    return [LatentUpscalerModeItem(name=mode.name) for mode in LATENT_MODES]


@router.get("/face-restorers")
async def face_restorers() -> list[FaceRestorerItem]:
    """The face restorers; without their files they leave pictures as they are."""
    return [FaceRestorerItem(name=name) for name in FACE_RESTORERS]


@router.get("/realesrgan-models")
async def realesrgan_models() -> list[RealesrganItem]:
    """Real-ESRGAN's published models, on disk or not."""
    return [
        RealesrganItem(name=model.name, path=model.url, scale=int(model.scale))
        for model in REALESRGAN_MODELS
    ]
