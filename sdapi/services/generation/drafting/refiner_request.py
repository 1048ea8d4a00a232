"""The fields and options for a refiner -> what takes over (contract: webui-generation 12)."""

from sdapi.engine.jobs.job import Refiner
from sdapi.errors import BadRequest, near_names
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.generation.drafting.model_choice import NamedModel

_OFF = ("", "None", "none")
_FIRST, _SECOND, _BOTH = "first pass", "second pass", "both passes"


def names_refiner(request: Txt2ImgRequest | Img2ImgRequest) -> str | None:
    """The refiner a request names."""
    name = request.refiner_checkpoint
    return None if name is None or name in _OFF else name


def refiner(
    request: Txt2ImgRequest | Img2ImgRequest, options: Options, model: NamedModel
) -> Refiner:
    """When and where a checkpoint takes over; raises `BadRequest` for an unknown pass."""
    passes = options.text("hires_fix_refiner_pass") or _SECOND
    if passes not in (_FIRST, _SECOND, _BOTH):
        near = near_names(passes, (_FIRST, _SECOND, _BOTH))
        raise BadRequest(f"hires_fix_refiner_pass: {passes!r} is unknown; there are {near}")
    return Refiner(
        checkpoint=model.file,
        title=model.checkpoint.short_title,
        vae=model.vae,
        switch_at=request.refiner_switch_at,
        in_first_pass=passes != _SECOND,
        in_second_pass=passes != _FIRST,
    )
