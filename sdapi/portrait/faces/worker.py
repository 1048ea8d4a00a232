"""What runs in a face process: `python -m sdapi.portrait.faces.worker <descriptor> <seconds>`.

Tasks are functions of this project with their arguments; the first argument they get are the
process's providers. The answer is ("done", result) or ("failed", sentence). It ends with its
parent, whose end of the pipe closes then; a task that takes more than those seconds has no parent
any more that would end it.
"""

import contextlib
import logging
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from sdapi.portrait.faces.providers import Choices, Providers

#: below the server, which has requests to answer while faces are looked at
_NICENESS = 5


def main() -> None:
    """Serve until the parent closes its end."""
    # Ctrl-C, and a service manager's stop, go to the whole group, while the parent still drains.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    limit_s = int(sys.argv[2])
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with Connection(int(sys.argv[1])) as connection, contextlib.suppress(EOFError, OSError):
        choices: Choices = connection.recv()
        providers = Providers(choices)
        while True:
            task, arguments = connection.recv()
            signal.alarm(limit_s)  # the system ends it, whatever a decoder is doing
            connection.send(_answer(providers, task, arguments))
            signal.alarm(0)


def _answer(providers: Providers, task: Any, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "done", task(providers, *arguments)
    except Exception as error:
        logging.getLogger(__name__).exception("a face task failed")
        return "failed", f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
