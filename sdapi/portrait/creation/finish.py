"""What is done to the whole picture at the end: skin, enhancement, sharpness.

Contract: portrait-pipeline 3.13. None of it is ever fatal.
"""

from typing import Final

import anyio.to_thread
from PIL import Image

from sdapi.portrait.creation import face_tasks
from sdapi.portrait.creation.gathered.studio import Studio
from sdapi.portrait.faces.face import Face, Pixels
from sdapi.portrait.pixels.retouching.enhance import enlargement, half_and_half
from sdapi.portrait.pixels.retouching.sharpen import sharpened

_SUPER: Final = "super_resolution"


async def finish(studio: Studio, rgb: Pixels, faces: tuple[Face, ...]) -> Image.Image:
    """The finished picture."""
    options, processes = studio.options, studio.processes
    if options.skin_retouching_bool:
        rgb = await studio.improve(
            "skin_retouching_bool", rgb, processes.run(face_tasks.retouch_skin, rgb, faces)
        )
    if options.photo_enhancement_bool and options.photo_enhancement_method == _SUPER:
        rgb = await studio.improve("photo_enhancement_bool", rgb, _larger(studio, rgb))
    elif options.photo_enhancement_bool:
        rgb = await studio.improve("photo_enhancement_bool", rgb, _fixed(studio, rgb, faces))
    rgb = await anyio.to_thread.run_sync(sharpened, rgb, options.sharp_ratio)
    return Image.fromarray(rgb)


async def _fixed(studio: Studio, rgb: Pixels, faces: tuple[Face, ...]) -> Pixels:
    """By a face restorer where its files are there."""
    names = studio.inventory.restorers
    if not names:
        studio.warn("photo_fix: no face restorer is there; a cosmetic clean-up was done")
        return await studio.processes.run(face_tasks.fix_photo, rgb, faces)
    field = {"GFPGAN": "gfpgan_visibility", "CodeFormer": "codeformer_visibility"}
    usable = next(name for name in field if name in names)
    restored = await studio.drawer.improve(rgb, {field[usable]: 1.0, "codeformer_weight": 0.5})
    return await anyio.to_thread.run_sync(half_and_half, rgb, restored)


async def _larger(studio: Studio, rgb: Pixels) -> Pixels:
    """By an upscaler where its file is there, at most 4096 pixels long."""
    names = studio.inventory.upscalers
    if not names:
        studio.warn("super_resolution: no upscaler is there; the picture was resized")
        return await studio.processes.run(face_tasks.enlarge, rgb)
    fields = {"upscaler_1": names[0], "upscaling_resize": enlargement(rgb)}
    large = await studio.drawer.improve(rgb, fields)
    return await anyio.to_thread.run_sync(half_and_half, rgb, large)
