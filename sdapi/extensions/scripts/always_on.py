"""The webui's always-on scripts that have more to say than a field of the request.

Contract: webui-scripts 12 to 14.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, RootModel

from sdapi.options import Options, option_specs
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import IMG2IMG_ONLY, Kind, Listing, Script

if TYPE_CHECKING:
    from sdapi.services.container import Services


class Comments(Script):
    """Option `enable_prompt_comments` takes comments out of prompts."""

    name = "Comments"
    listing = Listing.NOWHERE


class Hypertile(Script):
    """Set by the `hypertile_*` options alone."""

    name = "Hypertile"
    listing = Listing.NAME


class SoftInpaintingArgs(BaseModel):
    """Values are written to infotext as they were sent, so they stay what they were."""

    enabled: Annotated[Any, Arg("Soft inpainting")] = False
    schedule_bias: Annotated[Any, Arg("Schedule bias", 0, 8, 0.1)] = 1
    preservation_strength: Annotated[Any, Arg("Preservation strength", 0, 8, 0.05)] = 0.5
    transition_contrast_boost: Annotated[Any, Arg("Transition contrast boost", 1, 32, 0.5)] = 4
    mask_influence: Annotated[Any, Arg("Mask influence", 0, 1, 0.05)] = 0
    difference_threshold: Annotated[Any, Arg("Difference threshold", 0, 8, 0.25)] = 0.5
    difference_contrast: Annotated[Any, Arg("Difference contrast", 0, 8, 0.25)] = 2


class SoftInpainting(Script):
    """Blends by how much the picture changes; the generation itself carries it out."""

    name = "Soft inpainting"
    kinds = IMG2IMG_ONLY
    args = SoftInpaintingArgs


class ExtraOptionsArgs(RootModel[list[Any]]):
    """One value for each option of `extra_options_txt2img` or `extra_options_img2img`."""


class ExtraOptions(Script):
    """Options as arguments: those that the options `extra_options_*` name, in that order."""

    name = "Extra options"
    args = ExtraOptionsArgs

    def describe(self, kind: Kind, services: "Services") -> list[dict[str, Any]]:
        """The options that the server's options name."""
        options, specs = services.options.current, option_specs()
        return [
            {
                "label": specs[key].description or key,
                "value": options[key],
                "minimum": None,
                "maximum": None,
                "step": None,
                "choices": None,
            }
            for key in options.names(f"extra_options_{kind}")
            if key in specs
        ]

    def overrides(self, args: ExtraOptionsArgs, options: Options, kind: Kind) -> Mapping[str, Any]:
        keys = options.names(f"extra_options_{kind}")
        return dict(zip(keys, args.root, strict=False))
