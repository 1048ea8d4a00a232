"""The command line as data: every flag of the webui and of ours, and how they are read.

Standard library only, because `launch.py` reads the command line before any package is installed.

A value comes from the command line (the webui's `COMMANDLINE_ARGS` variable is read as its
beginning), else from `SDAPI_<FLAG>` in the environment, else it is the default below. Flags that
mean something here act; the others are accepted and warn once, with the reason in their help, some
because what they ask for is not built yet.
"""

from sdapi.flags.flag import REPEATABLE, Flag, Kind
from sdapi.flags.own import OBJECT_STORE_HOSTS
from sdapi.flags.parsing import ParsedFlags, parse, split_command
from sdapi.flags.table import BY_DEST, FLAGS, SECRETS
from sdapi.flags.values import FlagError
from sdapi.flags.webui import WEBUI_FLAGS

__all__ = [
    "BY_DEST",
    "FLAGS",
    "OBJECT_STORE_HOSTS",
    "REPEATABLE",
    "SECRETS",
    "WEBUI_FLAGS",
    "Flag",
    "FlagError",
    "Kind",
    "ParsedFlags",
    "parse",
    "split_command",
]
