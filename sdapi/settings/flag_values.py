"""What the values of single flags mean.

Every function raises `SettingsError` for what cannot be, in a sentence for whoever typed it.
"""

import re
from pathlib import Path
from typing import Any

from sdapi.flags import BY_DEST, ParsedFlags
from sdapi.object_url import SCHEMES, ObjectUrl
from sdapi.settings.settings import DEFAULT_PORT, Mount

_LOG_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")


class SettingsError(ValueError):
    """Flags that are each readable but cannot work; the text is for the person who typed them."""


def path_of(text: str, base_dir: Path) -> Path:
    """A path as a shell would read it, below `base_dir` where it is relative."""
    return base_dir / Path(text).expanduser()


def paths_of(*texts: str | None) -> tuple[Path, ...]:
    """The paths that were given."""
    return tuple(Path(text) for text in texts if text)


def words_of(text: str | None) -> tuple[str, ...]:
    """The words between commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def at_least(minimum: int, flags: ParsedFlags, dest: str) -> Any:
    """A flag's number."""
    if not flags[dest] >= minimum:  # so that NaN fails too
        raise SettingsError(f"{BY_DEST[dest].name} must be at least {minimum}, not {flags[dest]}")
    return flags[dest]


def above_zero(flags: ParsedFlags, dest: str) -> float:
    """A flag's number."""
    value = flags[dest]
    if not 0 < value < 1e9:
        raise SettingsError(f"{BY_DEST[dest].name} must be a number above zero, not {value}")
    return value


def share_of(flags: ParsedFlags, dest: str) -> float:
    """A flag's number, above 0 and below 1."""
    value = flags[dest]
    if not 0 < value < 1:
        raise SettingsError(f"{BY_DEST[dest].name} must be between 0 and 1, not {value}")
    return value


def port_of(port: int | None) -> int:
    """Where to listen; 0 is any free port."""
    if port is None:
        return DEFAULT_PORT
    if not 0 <= port <= 65535:
        raise SettingsError(f"--port must be from 0 (any free one) to 65535, not {port}")
    return port


def tls_files(flags: ParsedFlags) -> tuple[Path | None, Path | None]:
    """Key and certificate, or neither."""
    key, certificate = flags["tls_keyfile"], flags["tls_certfile"]
    if not key and not certificate:
        return None, None
    if not key or not certificate:
        raise SettingsError("--tls-keyfile and --tls-certfile work together: give both or none")
    for name, text in (("--tls-keyfile", key), ("--tls-certfile", certificate)):
        if not Path(text).is_file():
            raise SettingsError(f"{name}: there is no file {text}")
    return Path(key), Path(certificate)


def regex_of(flags: ParsedFlags, dest: str) -> str | None:
    """A flag's regular expression."""
    pattern = flags[dest]
    if pattern:
        try:
            re.compile(pattern)
        except re.error as error:
            name = BY_DEST[dest].name
            raise SettingsError(f"{name} is no regular expression: {error}") from error
    return pattern or None


def user_of(entry: str) -> tuple[str, str]:
    """Name and password."""
    if entry.count(":") != 1:
        raise SettingsError(
            "--api-auth takes user:password[,user:password…], one colon in each entry"
        )
    user, _, password = entry.partition(":")
    return user, password


def token_of(token: str | None) -> str | None:
    """The EAS token."""
    if token is not None and (not token or token != token.strip()):
        raise SettingsError("--token must not be empty, nor begin or end with a space")
    return token


def service_token_of(entry: str) -> tuple[str, str]:
    """A service's name and its own token."""
    return _pair(entry, "--service-token takes NAME=TOKEN")


def provider_of(entry: str) -> tuple[str, str]:
    """A role in looking at faces, and the provider to use for it."""
    return _pair(entry, "--portrait-provider takes ROLE=NAME, as in detector=yunet")


def mount_of(entry: str, base_dir: Path) -> Mount:
    """A folder, and the prefix of an object store that it stands for, if any."""
    path, _, target = entry.partition("=")
    if not path:
        raise SettingsError(
            f"--mount {entry!r} names no folder; it takes PATH[=oss://bucket/prefix]"
        )
    prefix = prefix_of(target, "--mount", SCHEMES) if target else None
    return Mount(path_of(path, base_dir), prefix)


def prefix_of(url: str, flag: str, schemes: tuple[str, ...]) -> str:
    """An object store's prefix under one of these schemes."""
    try:
        found = ObjectUrl.parse(url)
    except ValueError as error:
        raise SettingsError(f"{flag}: {url!r}: {error}") from error
    if found.scheme not in schemes:
        raise SettingsError(f"{flag}: {url!r} is not of the form {schemes[0]}://bucket/prefix")
    return str(found)


def log_level_of(level: str | None) -> str:
    """The name of a level as `logging` has it."""
    name = (level or "INFO").upper()
    if name not in _LOG_LEVELS:
        raise SettingsError(f"--loglevel {level!r} is none of {', '.join(_LOG_LEVELS)}")
    return name


def _pair(entry: str, form: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not (name and equals and value):
        raise SettingsError(form)
    return name, value
