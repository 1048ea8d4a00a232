"""All flags, and what is to be known of some."""

from collections.abc import Mapping

from sdapi.flags.flag import Flag
from sdapi.flags.own import OWN_FLAGS
from sdapi.flags.webui import CONTROLNET_FLAGS, PAI_FLAGS, WEBUI_FLAGS

FLAGS = WEBUI_FLAGS + CONTROLNET_FLAGS + PAI_FLAGS + OWN_FLAGS
BY_DEST: Mapping[str, Flag] = {flag.dest: flag for flag in FLAGS}
#: they say what to do once, so the environment, which lasts, cannot hold them
COMMANDS = frozenset({"f", "exit", "test", "version"})
#: never shown, not even to a caller who may read everything else
SECRETS = frozenset(
    {
        *("api_auth", "gradio_auth", "ngrok", "portrait_authorization", "queue_url"),
        *("service_token", "token", "webhook_secret"),
    }
)
