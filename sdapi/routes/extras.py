"""POST /sdapi/v1/png-info and /interrogate."""

import anyio.to_thread
from fastapi import APIRouter

from sdapi import images, infotext
from sdapi.routes import ServicesDep
from sdapi.schemas.extras import (
    InterrogateRequest,
    InterrogateResponse,
    PNGInfoRequest,
    PNGInfoResponse,
)
from sdapi.schemas.problems import problems
from sdapi.services.catalog.styles import Styles
from sdapi.services.container import Services
from sdapi.services.generation.drafting.network_files import with_local_names
from sdapi.services.scripts.always_on import read_infotext

router = APIRouter(prefix="/sdapi/v1", tags=["pictures"])


@router.post("/png-info", responses=problems())
async def png_info(body: PNGInfoRequest, services: ServicesDep) -> PNGInfoResponse:
    """Read the generation parameters out of a picture."""
    image = await services.images.load(body.image.strip(), services.options.current, field="image")
    text, items = await anyio.to_thread.run_sync(images.read_infotext, image)
    styles = await anyio.to_thread.run_sync(Styles.load, *services.settings.styles_files)
    parameters = await anyio.to_thread.run_sync(_parameters, text, styles, services)
    return PNGInfoResponse(info=text, items=items, parameters=parameters)


def _parameters(text: str, styles: Styles, services: Services) -> dict[str, object]:
    """What an infotext says, in this server's names."""
    options = services.options.current
    parsed = infotext.parse(text, options=options, styles=styles)
    parsed = with_local_names(parsed, services.networks, options)
    return read_infotext(services.scripts.always_on, parsed)


@router.post("/interrogate", responses=problems(404, 429, 503))
async def interrogate(body: InterrogateRequest, services: ServicesDep) -> InterrogateResponse:
    """Describe a picture: a caption and the phrases near to it, or tags.

    Both read local models only; 503 names the file that is not there. One picture is looked at at a
    time: 429 when too many wait, 503 for who has waited for five minutes.
    """
    options = services.options.current
    image = await services.images.load(body.image, options, field="image")
    caption = await services.interrogators.describe(image, body.model, options)
    return InterrogateResponse(caption=caption)
