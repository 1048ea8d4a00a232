"""Whether requests could be drawn with other options of the server."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from sdapi.engine.upscaling.upscaler import ModelUpscaler
from sdapi.options import Options
from sdapi.schemas.generation import Txt2ImgRequest
from sdapi.services.catalog.object_models import NotFetched
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.drafting.job_builder import JobBuilder
from sdapi.services.generation.intake import Intake

if TYPE_CHECKING:
    from sdapi.services.container import Services


#: The webui keeps a format that it cannot write, and so do we: requests for it are refused.
_ANY_FORMAT = {"samples_format": "png", "grid_format": "png"}


@dataclass(frozen=True, slots=True)
class OptionTrial:
    """Makes the job of a plain request that saves its picture, and throws it away."""

    services: "Services"
    intake: Callable[[], Intake]

    def check(self, options: Options) -> None:
        """Raise the `SDAPIError` that such a request would get. Blocks."""
        request = Txt2ImgRequest.model_validate({"save_images": True})
        asked = self.intake().read("txt2img", request, options.overlay(_ANY_FORMAT))
        services = self.services
        builder = JobBuilder(
            services.catalog,
            asked.styles,
            services.networks,
            Upscalers(services.settings),
            _brings_no_picture,
        )
        with suppress(NotFetched):  # its file says the rest when it is there
            builder.build("", asked.request, asked.options, asked.eas)


def _brings_no_picture(upscaler: ModelUpscaler) -> NoReturn:
    raise AssertionError(f"txt2img has nothing for {upscaler} to enlarge")
