"""`POST /controlnet/render_openpose_json`: drawings of poses (contract: controlnet-api 12)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from PIL import Image

from sdapi.engine.control.annotators.kinds.people import render_people
from sdapi.errors import BadRequest
from sdapi.extensions.controlnet.units.pixel_budget import PixelBudget
from sdapi.images import encode_png, to_base64

_MOST_POSES: Final = 100
_NOTHING: Final = "No pose data detected."


def render_poses(poses: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answer: a drawing of each pose object in base64; blocks.

    Raises `BadRequest` that names what is wrong.
    """
    if not poses:
        return {"info": _NOTHING}
    if len(poses) > _MOST_POSES:
        raise BadRequest(f"at most {_MOST_POSES} pose objects at once, not {len(poses)}")
    budget, images = PixelBudget(), list[str]()
    for i, pose in enumerate(poses):
        try:
            drawn = render_people(pose)
        except BadRequest as error:
            raise BadRequest(f"{i}: {error.detail}") from error
        budget.take((drawn.shape[1], drawn.shape[0]), str(i))
        images.append(to_base64(encode_png(Image.fromarray(drawn), {})))
    return {"images": images, "info": "Success"}
