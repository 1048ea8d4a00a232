"""What the scripts of img2img begin with: its request, and the picture they start from."""

import anyio.to_thread
from PIL import Image

from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.generation.pictures.img2img import flatten
from sdapi.services.scripts.script import ScriptRun


def img2img_request(run: ScriptRun) -> Img2ImgRequest:
    """The request of a run whose script img2img alone has."""
    assert isinstance(run.request, Img2ImgRequest)
    return run.request


def first_picture(request: Img2ImgRequest) -> Image.Image:
    """The first init picture, which is decoded before a script runs."""
    picture = (request.init_images or [None])[0]
    assert isinstance(picture, Image.Image)
    return picture


async def opaque_first_picture(run: ScriptRun, request: Img2ImgRequest) -> Image.Image:
    """The first init picture over the background that the options name."""
    background = run.options.text("img2img_background_color")
    return await anyio.to_thread.run_sync(flatten, first_picture(request), background)
