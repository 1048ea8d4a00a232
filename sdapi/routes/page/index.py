"""The page at `/`."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

router = APIRouter()
_PAGE = Path(__file__).with_name("index.html")


@router.get("/", include_in_schema=False)
async def index() -> FileResponse:
    """A page with status, models and a prompt box."""
    return FileResponse(_PAGE, media_type="text/html")
