"""Flags from environment variables."""

import shlex
from collections.abc import Mapping
from typing import Any

from sdapi.flags.table import COMMANDS, FLAGS
from sdapi.flags.values import FlagError, from_text

ENVIRONMENT_PREFIX = "SDAPI_"
COMMAND_LINE_VARIABLE = "COMMANDLINE_ARGS"


def shared_arguments(environ: Mapping[str, str]) -> list[str]:
    """The webui's own variable, as words of a command line; raises `FlagError`."""
    try:
        return shlex.split(environ.get(COMMAND_LINE_VARIABLE, ""))
    except ValueError as error:
        raise FlagError(f"{COMMAND_LINE_VARIABLE} cannot be read: {error}") from error


def parse_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Flags from `SDAPI_<FLAG>`.

    Other variables of that prefix are let be: for a service named sdapi Kubernetes makes
    `SDAPI_SERVICE_HOST`, and an `SDAPI_PORT` that holds a URL. Raises `FlagError`.
    """
    found = _product_variables(environ)
    for flag in FLAGS:
        name = ENVIRONMENT_PREFIX + flag.dest.upper()
        text = environ.get(name, "").strip()
        if not text or flag.dest in COMMANDS or (flag.dest == "port" and "://" in text):
            continue
        try:
            found[flag.dest] = from_text(flag, text)
        except ValueError as error:
            raise FlagError(f"{name}: {error}") from error
    return found


def _product_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the product's service files set for the portrait; any other `URL` is let be."""
    url = environ.get("URL", "").strip()
    if not url.startswith(("http://", "https://")) or "AUTHORIZATION" not in environ:
        return {}
    return {"portrait_url": url, "portrait_authorization": environ["AUTHORIZATION"].strip()}
