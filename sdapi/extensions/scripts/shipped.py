"""The webui's own scripts as an extension, in its order (contract: webui-scripts 1.1)."""

from sdapi.extensions import hookimpl
from sdapi.extensions.scripts.always_on import Comments, ExtraOptions, Hypertile, SoftInpainting
from sdapi.extensions.scripts.selectable.alternative_test import AlternativeTest
from sdapi.extensions.scripts.selectable.loopback import Loopback
from sdapi.extensions.scripts.selectable.outpainting_mk2 import OutpaintingMk2
from sdapi.extensions.scripts.selectable.poor_mans_outpainting import PoorMansOutpainting
from sdapi.extensions.scripts.selectable.prompt_matrix import PromptMatrix
from sdapi.extensions.scripts.selectable.prompts_from_text import PromptsFromText
from sdapi.extensions.scripts.selectable.sd_upscale import SDUpscale
from sdapi.extensions.scripts.selectable.xyz_plot import XYZPlot
from sdapi.services.scripts.script import Script, SelectableScript


@hookimpl
def sdapi_scripts() -> list[Script | SelectableScript]:
    """Selectable ones, then always-on ones; those of `request_fields` come after all others."""
    return [
        AlternativeTest(),
        Loopback(),
        OutpaintingMk2(),
        PoorMansOutpainting(),
        PromptMatrix(),
        PromptsFromText(),
        SDUpscale(),
        XYZPlot(),
        ExtraOptions(),
        Hypertile(),
        SoftInpainting(),
        Comments(),
    ]
