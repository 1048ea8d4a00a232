"""Selectable scripts that are listed with their arguments and still to be built: 501.

Contract: webui-scripts 2 to 9. One that is built moves to a file of its own.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel

from sdapi.errors import NotBuilt
from sdapi.extensions.scripts.axis_names import axis_names
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import (
    IMG2IMG_ONLY,
    Kind,
    ScriptResult,
    ScriptRun,
    SelectableScript,
)

if TYPE_CHECKING:
    from sdapi.services.container import Services

_SIDES = ["left", "right", "up", "down"]
_HEADING = "See the webui's contract for what suits this script."


class _Announced(SelectableScript):
    async def run(self, run: ScriptRun, args: Any) -> ScriptResult:
        raise NotBuilt(f"script_name: the script {self.name!r} is not available yet")


class AlternativeTestArgs(BaseModel):
    """Contract: webui-scripts 9."""

    info: Annotated[Any, Arg("")] = _HEADING
    override_sampler: Annotated[
        Any, Arg("Override `Sampling method` to Euler?(this method is built for it)")
    ] = True
    override_prompt: Annotated[
        Any,
        Arg(
            "Override `prompt` to the same value as `original prompt`?(and `negative prompt`)",
        ),
    ] = True
    original_prompt: Annotated[Any, Arg("Original prompt")] = ""
    original_negative_prompt: Annotated[Any, Arg("Original negative prompt")] = ""
    override_steps: Annotated[
        Any, Arg("Override `Sampling Steps` to the same value as `Decode steps`?")
    ] = True
    decode_steps: Annotated[Any, Arg("Decode steps", 1, 150, 1)] = 50
    override_strength: Annotated[Any, Arg("Override `Denoising strength` to 1?")] = True
    decode_cfg_scale: Annotated[Any, Arg("Decode CFG scale", 0.0, 15.0, 0.1)] = 1.0
    randomness: Annotated[Any, Arg("Randomness", 0.0, 1.0, 0.01)] = 0.0
    sigma_adjustment: Annotated[Any, Arg("Sigma adjustment for finding noise for image")] = False


class LoopbackArgs(BaseModel):
    """Contract: webui-scripts 5."""

    loops: Annotated[Any, Arg("Loops", 1, 32, 1)] = 4
    final_strength: Annotated[Any, Arg("Final denoising strength", 0, 1, 0.01)] = 0.5
    curve: Annotated[
        Any, Arg("Denoising strength curve", choices=["Aggressive", "Linear", "Lazy"])
    ] = "Linear"
    interrogate: Annotated[
        Any,
        Arg("Append interrogated prompt at each iteration", choices=["None", "CLIP", "DeepBooru"]),
    ] = "None"


class OutpaintingArgs(BaseModel):
    """Contract: webui-scripts 2."""

    info: Annotated[Any, Arg("")] = _HEADING
    pixels: Annotated[Any, Arg("Pixels to expand", 8, 256, 8)] = 128
    mask_blur: Annotated[Any, Arg("Mask blur", 0, 64, 1)] = 8
    direction: Annotated[Any, Arg("Outpainting direction", choices=_SIDES)] = _SIDES
    exponent: Annotated[Any, Arg("Fall-off exponent (lower=higher detail)", 0.0, 4.0, 0.01)] = 1.0
    colour_variation: Annotated[Any, Arg("Color variation", 0.0, 1.0, 0.01)] = 0.05


class PoorMansOutpaintingArgs(BaseModel):
    """Contract: webui-scripts 3; the content is sent as an index, and shown by name."""

    pixels: Annotated[Any, Arg("Pixels to expand", 8, 256, 8)] = 128
    mask_blur: Annotated[Any, Arg("Mask blur", 0, 64, 1)] = 4
    content: Annotated[
        Any,
        Arg(
            "Masked content",
            choices=["fill", "original", "latent noise", "latent nothing"],
            shown="fill",
        ),
    ] = 0
    direction: Annotated[Any, Arg("Outpainting direction", choices=_SIDES)] = _SIDES


class PromptMatrixArgs(BaseModel):
    """Contract: webui-scripts 6."""

    at_start: Annotated[Any, Arg("Put variable parts at start of prompt")] = False
    different_seeds: Annotated[Any, Arg("Use different seed for each picture")] = False
    prompt: Annotated[Any, Arg("Select prompt", choices=["positive", "negative"])] = "positive"
    joining: Annotated[Any, Arg("Select joining char", choices=["comma", "space"])] = "comma"
    margin: Annotated[Any, Arg("Grid margins (px)", 0, 500, 2)] = 0


class PromptsFromTextArgs(BaseModel):
    """Contract: webui-scripts 7."""

    iterate_seed: Annotated[Any, Arg("Iterate seed every line")] = False
    same_seed: Annotated[Any, Arg("Use same random seed for all lines")] = False
    place: Annotated[Any, Arg("Insert prompts at the", choices=["start", "end"])] = "start"
    lines: Annotated[Any, Arg("List of prompt inputs")] = ""


def _upscaler_names(services: "Services") -> list[str]:
    upscalers = Upscalers(services.settings)
    return [*upscalers.filters(), *(file.name for file in upscalers.files())]


class SDUpscaleArgs(BaseModel):
    """Contract: webui-scripts 4; the upscaler is sent as index or name, and shown by name."""

    info: Annotated[Any, Arg("")] = _HEADING
    overlap: Annotated[Any, Arg("Tile overlap", 0, 256, 16)] = 64
    upscaler: Annotated[Any, Arg("Upscaler", choices=_upscaler_names, shown="None")] = 0
    scale: Annotated[Any, Arg("Scale Factor", 1.0, 4.0, 0.05)] = 2.0


class XYZPlotArgs(BaseModel):
    """Contract: webui-scripts 8; axes are sent as indices, and shown by name."""

    x_type: Annotated[Any, Arg("X type", shown="Seed")] = 1
    x_values: Annotated[Any, Arg("X values")] = ""
    x_list: Annotated[Any, Arg("X values", choices=[])] = None
    y_type: Annotated[Any, Arg("Y type", shown="Nothing")] = 0
    y_values: Annotated[Any, Arg("Y values")] = ""
    y_list: Annotated[Any, Arg("Y values", choices=[])] = None
    z_type: Annotated[Any, Arg("Z type", shown="Nothing")] = 0
    z_values: Annotated[Any, Arg("Z values")] = ""
    z_list: Annotated[Any, Arg("Z values", choices=[])] = None
    draw_legend: Annotated[Any, Arg("Draw legend")] = True
    sub_images: Annotated[Any, Arg("Include Sub Images")] = False
    sub_grids: Annotated[Any, Arg("Include Sub Grids")] = False
    keep_random: Annotated[Any, Arg("Keep -1 for seeds")] = False
    vary_x: Annotated[Any, Arg("Vary seeds for X")] = False
    vary_y: Annotated[Any, Arg("Vary seeds for Y")] = False
    vary_z: Annotated[Any, Arg("Vary seeds for Z")] = False
    margin: Annotated[Any, Arg("Grid margins (px)", 0, 500, 2)] = 0
    as_text: Annotated[Any, Arg("Use text inputs instead of dropdowns")] = False


class AlternativeTest(_Announced):
    """Finds the noise that would have made the init picture."""

    name = "img2img alternative test"
    kinds = IMG2IMG_ONLY
    args = AlternativeTestArgs


class Loopback(_Announced):
    """Feeds each picture into the next generation."""

    name = "Loopback"
    kinds = IMG2IMG_ONLY
    args = LoopbackArgs


class OutpaintingMk2(_Announced):
    """Extends a picture over noise of its own colours."""

    name = "Outpainting mk2"
    kinds = IMG2IMG_ONLY
    args = OutpaintingArgs


class PoorMansOutpainting(_Announced):
    """Extends a picture tile by tile."""

    name = "Poor man's outpainting"
    kinds = IMG2IMG_ONLY
    args = PoorMansOutpaintingArgs


class PromptMatrix(_Announced):
    """Every combination of the parts of a prompt."""

    name = "Prompt matrix"
    args = PromptMatrixArgs


class PromptsFromText(_Announced):
    """One generation for each line."""

    name = "Prompts from file or textbox"
    args = PromptsFromTextArgs


class SDUpscale(_Announced):
    """Enlarges a picture and draws it anew in tiles."""

    name = "SD upscale"
    kinds = IMG2IMG_ONLY
    args = SDUpscaleArgs


class XYZPlot(_Announced):
    """A grid over up to three settings."""

    name = "X/Y/Z plot"
    args = XYZPlotArgs
    #: places of the axes' types among the arguments
    _TYPES: ClassVar = (0, 3, 6)

    def describe(self, kind: Kind, services: "Services") -> list[dict[str, Any]]:
        """The axes differ between the two kinds, and by what the page offers."""
        names = axis_names(kind, has_page=services.settings.webui)
        described = super().describe(kind, services)
        return [
            each | {"choices": names} if place in self._TYPES else each
            for place, each in enumerate(described)
        ]


ANNOUNCED: tuple[SelectableScript, ...] = (
    AlternativeTest(),
    Loopback(),
    OutpaintingMk2(),
    PoorMansOutpainting(),
    PromptMatrix(),
    PromptsFromText(),
    SDUpscale(),
    XYZPlot(),
)
