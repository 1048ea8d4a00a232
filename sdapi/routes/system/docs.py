"""Swagger UI and ReDoc from files of our own: an operator's network may reach no CDN."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)
_ASSETS = "/docs-assets"
_NO_ICON = "data:,"


def mount_assets(app: FastAPI) -> None:
    """Serve the scripts and styles of both pages. Raises `RuntimeError` without their package."""
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package fastapi-offline is not installed; it carries the API pages")
    folder = Path(spec.origin).parent / "static"
    app.mount(_ASSETS, StaticFiles(directory=folder), name="docs-assets")


@router.get("/docs")
async def swagger(request: Request) -> HTMLResponse:
    """The API, to be tried out."""
    return get_swagger_ui_html(
        openapi_url=_below_prefix(request, str(request.app.openapi_url)),
        title="sdapi",
        swagger_js_url=_below_prefix(request, f"{_ASSETS}/swagger-ui-bundle.js"),
        swagger_css_url=_below_prefix(request, f"{_ASSETS}/swagger-ui.css"),
        swagger_favicon_url=_NO_ICON,
    )


@router.get("/redoc")
async def redoc(request: Request) -> HTMLResponse:
    """The API, to be read."""
    return get_redoc_html(
        openapi_url=_below_prefix(request, str(request.app.openapi_url)),
        title="sdapi",
        redoc_js_url=_below_prefix(request, f"{_ASSETS}/redoc.standalone.js"),
        redoc_favicon_url=_NO_ICON,
        with_google_fonts=False,
    )


def _below_prefix(request: Request, path: str) -> str:
    """A path as a browser asks for it: below the prefix at which a proxy shows this server."""
    return str(request.scope.get("root_path", "")).rstrip("/") + path
