"""The process: command line in, exit code out.

Exit codes: 0 stopped as asked, 1 could not start, 2 a command line that cannot be understood.

The port is bound before the application is imported, so that a taken port is told at once and an
early client waits instead of being refused.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Never

from sdapi import __version__
from sdapi.errors import SDAPIError
from sdapi.flags import FlagError, ParsedFlags, parse, split_command
from sdapi.logs import configure_logging
from sdapi.options import Options
from sdapi.queue.config.service_config import ServiceFileError, load_services
from sdapi.queue.config.service_files import Deployment
from sdapi.security import Credentials
from sdapi.settings import Settings, SettingsError, settings_from

if TYPE_CHECKING:
    from fastapi import FastAPI

OK, START_FAILED, USAGE = 0, 1, 2
ACCOUNT_COMMAND = "portrait-account"
#: a tenth of Python's own: the event loop shall not wait long for the threads that draw
GIL_SWITCH_S = 0.0005
#: How OpenMP's threads wait for each other: asleep. They spin otherwise, and beside another busy
#: process each picture then takes several times as long. Read when torch is imported.
OPENMP_WAIT = ("OMP_WAIT_POLICY", "PASSIVE")
#: when a silent peer is asked whether it is there: after a minute, then four times. A watcher may
#: be silent for hours; one whose machine has gone must not hold its items.
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

logger = logging.getLogger("sdapi")


def main(argv: Sequence[str]) -> int:
    """Serve until told to stop, or run a command; returns the exit code."""
    if list(argv[:1]) == [ACCOUNT_COMMAND]:
        return _account(argv[1:])
    command, arguments = split_command(argv)
    try:
        flags = parse(arguments, os.environ)
        if flags["version"]:
            print(f"sdapi {__version__}")
            return OK
        flags, settings, warnings = _with_service_files(arguments, flags)
    except (FlagError, SettingsError, ServiceFileError) as error:
        return _complain(f"{error}\nlaunch.py --help lists every flag", USAGE)
    if command:
        return _queue_command(settings, command[1:])
    configure_logging(settings.log_level, settings.log_format)
    for warning in (*flags.warnings(), *warnings):
        logger.warning(warning)
    return _start(settings)


def _with_service_files(
    arguments: Sequence[str], flags: ParsedFlags
) -> tuple[ParsedFlags, Settings, list[str]]:
    """The flags and settings with what service files add, and what has no meaning in them."""
    settings = settings_from(flags, base_dir())
    load_services(settings)
    deployment = Deployment.read(settings.service_files, settings.data_dir)
    script, warnings = deployment.arguments()
    flags = parse(arguments, os.environ, script)
    settings = settings_from(flags, base_dir())
    if os.environ.get("OSS_ACCESS_KEY_ID"):
        return flags, deployment.add_storage(settings), warnings
    settings, keyless = deployment.add_local_storage(settings)
    return flags, settings, [*warnings, *keyless]


def _queue_command(settings: Settings, words: Sequence[str]) -> int:
    from sdapi.queue import commands  # imports the stores

    try:
        print(asyncio.run(commands.run(settings, words)))
    except commands.UsageError as error:
        return _complain(str(error), USAGE)
    except SDAPIError as error:
        return _complain(error.detail, START_FAILED)
    return OK


def run() -> Never:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def _account(argv: Sequence[str]) -> int:
    from sdapi.portrait import commands

    return commands.main(argv, base_dir())


def base_dir() -> Path:
    """The launch folder: the checkout's, or the working directory when installed as a package."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "launch.py").is_file() else Path.cwd()


def _complain(sentence: str, code: int) -> int:
    print(f"sdapi: {sentence}", file=sys.stderr)
    return code


def _start(settings: Settings) -> int:
    try:
        (settings.models_dir / "Stable-diffusion").mkdir(parents=True, exist_ok=True)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _complain(
            f"cannot make the folder {error.filename}: {error.strerror}; --data-dir names another",
            START_FAILED,
        )
    if problem := (
        _options_problem(settings.options_file)
        or _models_problem(settings)
        or _mount_problem(settings)
    ):
        return _complain(problem, START_FAILED)
    try:
        bound = bind(settings.host, settings.port)
    except OSError as error:
        return _complain(_bind_problem(settings, error), START_FAILED)
    with bound:
        return _serve(settings, bound)


def _options_problem(path: Path) -> str | None:
    try:
        Options.load(path)
    except OSError as error:
        reason = f"cannot read {path}: {error.strerror}"
    except ValueError as error:
        reason = str(error)
    else:
        return None
    return f"{reason}; repair the file, or move it away to start with default options"


def _mount_problem(settings: Settings) -> str | None:
    """Make the folders of mounts that are not there, and say so; why one cannot be made."""
    if settings.role == "api":  # which saves nothing
        return None
    for mount in settings.mounts:
        path = mount.path
        if mount.folder is not None:  # of a service file: the path is a name
            continue
        try:
            if path.is_dir():
                continue
            if mount.oss and not path.exists():
                logger.info(
                    "--mount %s: there is no such folder here, so files for %s lie in %s/mounts",
                    *(path, mount.oss, settings.data_dir),
                )
                continue
            path.mkdir(parents=True, exist_ok=True)  # another server may start beside this one
        except OSError as error:
            return f"--mount {path}: cannot make this folder: {error.strerror}"
        logger.warning(
            "--mount %s: there was no such folder, and it was made on this machine's disk; "
            "what is to be mounted there must be mounted before the start",
            path,
        )
    return None


def _models_problem(settings: Settings) -> str | None:
    """Why flags that name models keep the server from starting; warns of what does not."""
    from sdapi.services.start_check import start_problem, start_warnings

    for warning in start_warnings(settings):
        logger.warning(warning)
    return start_problem(settings)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
    bound = socket.create_server(
        (str(address[0]), port), family=family, backlog=2048, dualstack_ipv6=both
    )
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted ones inherit it
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):  # not all systems have them
            bound.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return bound


def _bind_problem(settings: Settings, error: OSError) -> str:
    place = f"port {settings.port} on {settings.host}"
    if error.errno == errno.EADDRINUSE:
        return f"{place} is in use; stop the program that uses it, or choose another with --port N"
    if error.errno == errno.EACCES:
        return f"{place} needs more rights than this user has; choose one above 1023 with --port N"
    return f"cannot listen on {place}: {error.strerror or error}; see --port and --server-name"


def _serve(settings: Settings, bound: socket.socket) -> int:
    from sdapi.serving.server import Server  # imports uvicorn

    sys.setswitchinterval(GIL_SWITCH_S)
    os.environ.setdefault(*OPENMP_WAIT)
    if problem := _storage_problem(settings):
        return _complain(problem, START_FAILED)
    try:
        app = _build(settings)
        server = Server(
            app,
            settings,
            on_started=lambda: announce_port(settings, bound),
            on_readiness=lambda problems: announce(settings, bound, problems),
        )
    except KeyboardInterrupt:
        return OK
    except ssl.SSLError as error:
        return _complain(
            f"--tls-keyfile and --tls-certfile are no private key and its certificate ({error})",
            START_FAILED,
        )
    except Exception:
        logger.exception("the server could not start")
        return START_FAILED
    return OK if server.serve_until_stopped(bound) else START_FAILED


def _storage_problem(settings: Settings) -> str | None:
    from sdapi.services.storage.delivery.outbox import Outbox
    from sdapi.services.storage.stores.by_url import Stores, start_problem

    outbox = Outbox(settings.outbox_dir / "uploads.db")
    if problem := outbox.problem():
        return problem
    outbox.close()
    uses_stores = settings.allow_oss or any(mount.oss for mount in settings.mounts)
    if settings.role == "api" or not uses_stores:  # that role saves nothing
        return None
    return start_problem(settings, Stores(os.environ), logger.warning)


def _build(settings: Settings) -> "FastAPI":
    from sdapi.app import build_app
    from sdapi.services.jobs.worker import ServingEngines

    return build_app(settings, ServingEngines())


def announce_port(settings: Settings, bound: socket.socket) -> None:
    """Say where the server listens, and warn once when everyone may use it."""
    logger.info(
        "listening at %s; requests wait until it can draw, which /readyz tells",
        _url(settings, bound),
    )
    host = bound.getsockname()[0]
    if Credentials(settings).is_open and not ipaddress.ip_address(host).is_loopback:
        logger.warning(
            "everyone who reaches this port may use the server; close it with --token or --api-auth"
        )


def announce(settings: Settings, bound: socket.socket, problems: Sequence[str] = ()) -> None:
    """Say that the server is ready, or that it answers and what keeps it from drawing."""
    url, host = _url(settings, bound), bound.getsockname()[0]
    everywhere = " (on every address)" if host in ("0.0.0.0", "::") else ""
    state = "is ready" if not problems else "cannot draw, and answers"
    print(f"sdapi {__version__} {state} at {url}{everywhere}, API at {url}/docs", flush=True)
    for problem in problems:
        print(f"sdapi: {problem}", flush=True)


def _url(settings: Settings, bound: socket.socket) -> str:
    """Of this port; only a proxy knows the subpath."""
    host, port = bound.getsockname()[:2]
    scheme = "https" if settings.tls_certfile else "http"
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{scheme}://{shown}:{port}"


if __name__ == "__main__":
    run()
