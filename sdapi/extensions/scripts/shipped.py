"""The webui's own scripts as an extension, in its order (contract: webui-scripts 1.1)."""

from sdapi.extensions import hookimpl
from sdapi.extensions.scripts.always_on import Comments, ExtraOptions, Hypertile, SoftInpainting
from sdapi.extensions.scripts.announced import ANNOUNCED
from sdapi.services.scripts.script import Script, SelectableScript


@hookimpl
def sdapi_scripts() -> list[Script | SelectableScript]:
    """Selectable ones, then always-on ones; those of `request_fields` come after all others."""
    return [*ANNOUNCED, ExtraOptions(), Hypertile(), SoftInpainting(), Comments()]
