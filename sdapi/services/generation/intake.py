"""What a request asks for, read and checked before it has a task."""

from dataclasses import dataclass

from sdapi import infotext
from sdapi.engine.sampling.sampler_names import resolve
from sdapi.engine.upscaling.upscaler import ModelUpscaler
from sdapi.errors import SDAPIError
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.services.catalog.styles import Styles
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.drafting.network_files import with_local_names
from sdapi.services.generation.drafting.request_limits import check_formats
from sdapi.services.generation.eas import take_eas_fields
from sdapi.services.generation.order import Asked
from sdapi.services.generation.pictures.img2img import find_upscaler
from sdapi.services.generation.saving.output_folders import OutputFolders
from sdapi.services.scripts.always_on import script_options
from sdapi.services.scripts.registry import Scripts
from sdapi.services.scripts.script import GenerationRequest, Kind
from sdapi.services.storage.places import Place
from sdapi.services.storage.storage import Storage
from sdapi.settings import Settings


@dataclass(frozen=True, slots=True)
class Intake:
    """Reads requests. It looks at folders, so it belongs in a thread."""

    settings: Settings
    networks: NetworkCatalog
    scripts: Scripts
    storage: Storage
    folders: OutputFolders

    def read(self, kind: Kind, request: GenerationRequest, server_options: Options) -> Asked:
        """What a request asks for: `infotext`, options and scripts applied, places checked.

        Raises `SDAPIError` for what can be refused without a job. Blocks.
        """
        eas, sent_scripts = take_eas_fields(request.alwayson_scripts)
        place = None if eas.save_dir is None else self.storage.place(eas.save_dir)
        styles = Styles.load(*self.settings.styles_files)
        request, options = self._with_infotext(kind, request, server_options, styles)
        called = self.scripts.find(kind, request.script_name, request.script_args, sent_scripts)
        own = script_options(called.always_on, options, kind)
        options = options.overlay(own).overlay(request.override_settings or {})
        self._check_folders(kind, request, options, place)
        return Asked(
            kind,
            request,
            options,
            eas,
            sent_scripts,
            called,
            styles,
            plain_options=server_options.overlay(own),
            place=place,
            needs_device_before=self._enlarges(request, options),
        )

    def _with_infotext(
        self, kind: Kind, request: GenerationRequest, options: Options, styles: Styles
    ) -> tuple[GenerationRequest, Options]:
        """Fill what is left out from `infotext`, and lay `override_settings` over the options."""
        overrides = dict(request.override_settings or {})
        if request.infotext:
            parsed = infotext.parse(request.infotext, options=options, styles=styles)
            parsed = with_local_names(parsed, self.networks, options)
            fields = infotext.request_fields(parsed, kind, resolve_sampler=_resolve_names)
            sent = request.model_fields_set
            fills = {key: value for key, value in fields.items() if key not in sent}
            overrides = infotext.option_overrides(parsed, options) | overrides
            if overrides:
                fills["override_settings"] = overrides
            request = request.model_copy(update=fills)
        return request, options.overlay(overrides)

    def _check_folders(
        self, kind: Kind, request: GenerationRequest, options: Options, place: Place | None
    ) -> None:
        """Refuse folders outside the allowed roots before anything is drawn."""
        if place is not None:
            return
        self.folders.check_init_images(options)
        if request.save_images:
            check_formats(options)
            self.folders.check(kind, options)

    def _enlarges(self, request: GenerationRequest, options: Options) -> bool:
        """Whether a model enlarges the pictures that a request brings."""
        if not isinstance(request, Img2ImgRequest):
            return False
        try:
            found = find_upscaler(options, Upscalers(self.settings))
        except SDAPIError:
            return False  # its draft fails for the same reason
        return isinstance(found, ModelUpscaler)


def _resolve_names(sampler: str, scheduler: str) -> tuple[str, str]:
    found, label = resolve(sampler, scheduler)
    return found.name, label
