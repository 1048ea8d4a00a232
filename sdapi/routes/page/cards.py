"""What the webui's page shows of networks: their texts and pictures; there with the page only.

Contract: webui-api 16.
"""

import html
import json
from typing import Any

import anyio.to_thread
from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from sdapi.errors import Missing
from sdapi.routes import ServicesDep
from sdapi.services.catalog.network_listing import find_thumbnail, lora_metadata
from sdapi.services.catalog.networks import Lora
from sdapi.services.container import Services

router = APIRouter(prefix="/sd_extra_networks", tags=["page"])


@router.get("/thumb", response_class=Response)
async def thumbnail(services: ServicesDep, filename: str = "") -> Response:
    """The picture beside a network's file."""
    found = await anyio.to_thread.run_sync(find_thumbnail, filename, services.settings)
    if found is None:
        raise Missing("File not found")
    return FileResponse(found)


@router.get("/cover-images")
async def cover_images() -> None:
    """404: no network's file here carries pictures."""
    raise Missing("File not found")


@router.get("/metadata")
async def metadata(services: ServicesDep, page: str = "", item: str = "") -> dict[str, Any]:
    """A LoRA's metadata as JSON text; empty for what is not there or says nothing."""
    lora = await _find(services, page, item)
    found = {} if lora is None else lora_metadata(lora)
    return {"metadata": json.dumps(found, indent=4, ensure_ascii=False)} if found else {}


@router.get("/get-single-card")
async def single_card(
    services: ServicesDep, page: str = "", tabname: str = "", name: str = ""
) -> dict[str, str]:
    """A card for a page: the network's name, and its file."""
    lora = await _find(services, page, name)
    if lora is None:
        return {"html": ""}
    title, path = html.escape(lora.name), html.escape(str(lora.path))
    text = f'<div class="card" data-name="{title}" title="{path}"><span>{title}</span></div>'
    return {"html": text}


async def _find(services: Services, page: str, name: str) -> Lora | None:
    if page != "lora" or not name:
        return None
    return await anyio.to_thread.run_sync(services.networks.lora, name)
