"""`/controlnet/*` (contract: controlnet-api 12). Behind the server's credentials like the rest."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import anyio.to_thread
from fastapi import APIRouter
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from sdapi.extensions.controlnet.api.control_types import control_types
from sdapi.extensions.controlnet.api.detection_limits import DetectionLimits
from sdapi.extensions.controlnet.model_files import ControlModels
from sdapi.extensions.controlnet.preprocessors import module_detail, module_list
from sdapi.schemas.coercion import Bool, Float, Int, Str

if TYPE_CHECKING:
    from sdapi.services.container import Services

_API_VERSION: Final = 3
_LARGEST_INT: Final = 2**31 - 1


class DetectRequest(BaseModel):
    """What to look for in which pictures."""

    model_config = ConfigDict(allow_inf_nan=False)

    controlnet_module: Str = "none"
    #: `webuiapi` sends the shorter name
    controlnet_input_images: list[str] = Field(
        default=[], validation_alias=AliasChoices("controlnet_input_images", "controlnet_images")
    )
    controlnet_processor_res: Annotated[Int, Field(ge=-_LARGEST_INT, le=_LARGEST_INT)] = -1
    controlnet_threshold_a: Float = -1
    controlnet_threshold_b: Float = -1
    controlnet_masks: list[str] = []
    low_vram: Bool = False


def router(services: "Services") -> APIRouter:
    """The routes of a server."""
    routes = APIRouter(prefix="/controlnet", tags=["controlnet"])
    _add_listings(routes, services)
    _add_preprocessors(routes)
    _add_works(routes, services)
    return routes


def _add_listings(routes: APIRouter, services: "Services") -> None:
    models = ControlModels(services.settings, services.catalog)

    async def listed() -> list[Any]:
        return await anyio.to_thread.run_sync(models.all, services.options.current)

    @routes.get("/version")
    async def version() -> dict[str, int]:
        """The version of this API, not of any extension."""
        return {"version": _API_VERSION}

    @routes.get("/model_list")
    async def model_list(update: bool = True) -> dict[str, list[str]]:
        """The models there are. Folders are read anew with every call; `update` is accepted."""
        return {"model_list": [model.name for model in await listed()]}

    @routes.get("/control_types")
    async def types() -> dict[str, Any]:
        """What belongs together: for each kind of map its preprocessors and models."""
        return {"control_types": control_types(await listed())}

    @routes.get("/settings")
    async def settings() -> dict[str, int]:
        """How many units a request may enable."""
        count = services.options.current.integer("control_net_unit_count")
        return {"control_net_unit_count": count}


def _add_preprocessors(routes: APIRouter) -> None:
    @routes.get("/module_list")
    async def modules(alias_names: bool = False) -> dict[str, Any]:
        """The preprocessors with their sliders, by name or, with `alias_names`, by label."""
        return {
            "module_list": module_list(alias_names=alias_names),
            "module_detail": module_detail(alias_names=alias_names),
        }


def _add_works(routes: APIRouter, services: "Services") -> None:
    limits = DetectionLimits()

    @routes.post("/detect")
    async def detect(request: DetectRequest) -> dict[str, Any]:
        """Preprocessors on their own: a map for each picture."""
        from sdapi.extensions.controlnet.api.detecting import Detection, detect_maps  # OpenCV

        asked = Detection(
            module=request.controlnet_module,
            images=request.controlnet_input_images,
            masks=request.controlnet_masks,
            resolution=request.controlnet_processor_res,
            threshold_a=request.controlnet_threshold_a,
            threshold_b=request.controlnet_threshold_b,
        )
        return await detect_maps(asked, services, limits)

    @routes.post("/render_openpose_json")
    async def render_openpose_json(poses: list[dict[str, Any]]) -> dict[str, Any]:
        """Drawings of poses in OpenPose's JSON form, as `detect` answers them."""
        from sdapi.extensions.controlnet.api.poses import render_poses

        return await anyio.to_thread.run_sync(render_poses, poses, limiter=limits.threads)
