"""`GET` and `POST /sdapi/v1/options`: what is shown, and what a request may change.

Contract: webui-api 12.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio.to_thread

from sdapi.errors import BadRequest, NotBuilt, SDAPIError, UnknownName, near_names
from sdapi.options import Options, option_specs
from sdapi.schemas.coercion import to_flag, to_float, to_text
from sdapi.services.catalog.catalog import Catalog, Checkpoint
from sdapi.services.options.sections import FOLDER_OPTIONS, HIDDEN, section_of_option
from sdapi.services.options.server_options import ServerOptions
from sdapi.settings import Settings

#: how `GET /options` shows the values of an option, by the type of its default
_SHOWN_BY: Final[Mapping[type, Callable[[object], object]]] = {
    bool: to_flag,
    int: to_float,
    float: to_float,
    str: to_text,
}


@dataclass(frozen=True, slots=True)
class OptionChanges:
    """Shows the server's options and changes them. A running job keeps those it was made with."""

    settings: Settings
    options: ServerOptions
    catalog: Catalog
    #: told of another checkpoint, so that an idle worker can load it before the next job
    preload: Callable[[Checkpoint], None]
    #: raises what requests would get with some options
    check: Callable[[Options], None]

    def shown(self) -> dict[str, object]:
        """Every option as the webui shows it: whole numbers as floats, the checkpoint's title."""
        options = self.options.current
        shown = {key: _as_shown(key, options[key]) for key in options}
        try:
            checkpoint = self.catalog.default_checkpoint(options.text("sd_model_checkpoint"))
        except SDAPIError:
            return shown
        shown["sd_model_checkpoint"] = checkpoint.title
        shown["sd_checkpoint_hash"] = checkpoint.sha256 or ""
        return shown

    async def apply(self, values: Mapping[str, Any]) -> None:
        """Change options for later jobs and write the options file; all of them or none.

        Raises `UnknownName` for a key, checkpoint or VAE that is not there, `BadRequest` with
        `--freeze-settings` or for a value that an option's readers cannot use.
        """
        if self.settings.freeze_settings:
            raise BadRequest("changing settings is disabled")
        allowed, checkpoint = await anyio.to_thread.run_sync(self._checked, values)
        if checkpoint is not None:
            allowed["sd_model_checkpoint"] = (await self.catalog.hashed(checkpoint)).title
        await anyio.to_thread.run_sync(self.options.change_and_save, allowed)
        if checkpoint is not None:
            await anyio.to_thread.run_sync(self.preload, checkpoint)

    def _checked(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], Checkpoint | None]:
        """What of a request may be changed, and the checkpoint that it names."""
        known = option_specs()
        for key in values:
            if key not in known:
                raise UnknownName(f"'{key}' is not an option; near names: {near_names(key, known)}")
        allowed = {key: value for key, value in values.items() if not self._is_fixed(key)}
        checkpoint = self._checkpoint(allowed)
        self._check_vae(allowed)
        self._try_out(allowed)
        return allowed, checkpoint

    def _try_out(self, values: Mapping[str, Any]) -> None:
        """Refuse what would make a plain request fail that does not fail now."""
        refusal = self._refusal(self.options.current.overlay(values))
        if refusal is None:
            return
        now = self._refusal(self.options.current)
        if now is None or now.detail != refusal.detail:
            raise refusal

    def _refusal(self, options: Options) -> SDAPIError | None:
        """What a plain request would get, as far as options cause it; not what is missing here."""
        try:
            self.check(options)
        except SDAPIError as error:
            return error if error.status < 500 or isinstance(error, NotBuilt) else None
        return None

    def _is_fixed(self, key: str) -> bool:
        """Whether a request cannot change an option; such keys are passed over without a word."""
        settings, section = self.settings, section_of_option()[key]
        return (
            option_specs()[key].restricted
            or section == HIDDEN
            or section in settings.freeze_settings_in_sections
            or key in settings.freeze_specific_settings
            or (settings.hide_ui_dir_config and key in FOLDER_OPTIONS)
        )

    def _checkpoint(self, values: Mapping[str, Any]) -> Checkpoint | None:
        name = values.get("sd_model_checkpoint")
        return None if name is None else self.catalog.checkpoint(str(name))

    def _check_vae(self, values: Mapping[str, Any]) -> None:
        name = values.get("sd_vae")
        if name is not None and not self.catalog.has_vae(str(name)):
            names = ["Automatic", "None", *(vae.name for vae in self.catalog.vaes)]
            raise UnknownName(f"VAE '{name}' not found; there are {near_names(str(name), names)}")


def _as_shown(key: str, value: object) -> object:
    """A value through the reference's answer schema, which has a type where a default is truthy.

    What that type cannot take is shown as it was set.
    """
    default = option_specs()[key].default
    convert = _SHOWN_BY.get(type(default)) if default else None
    if convert is None or value is None:
        return value
    try:
        return convert(value)
    except ValueError:
        return value
