#!/usr/bin/env python3
"""Start sdapi, making its environment first when there is none.

    python launch.py [flags]               serve
    python launch.py --test [for pytest]   run the tests
    python launch.py portrait-account …    add and list accounts of the portrait API
    python launch.py queue list|show|…     look after the queues

Only the standard library is used until the environment is there. It is `venv/` beside this file,
unless this Python already runs in a virtual environment. What was installed is recorded in it, so
that the next start does not touch the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from sdapi.flags import ParsedFlags

ROOT = Path(__file__).resolve().parent
MINIMUM_PYTHON = (3, 11)
REQUIREMENTS = "requirements.txt"
TEST_REQUIREMENTS = "requirements-test.txt"
RECORD = "sdapi-installed.json"
ENTERED = "SDAPI_LAUNCH_ENTERED"
NEEDED_MODULES = ("fastapi", "uvicorn", "torch", "diffusers")
SPACE_BYTES = 8 << 30
ACCOUNT_COMMAND = "portrait-account"
FACE_FILES = "face-files"
#: the wheel is unpacked, never installed: its requirements contradict ours
FACE_WHEEL = (
    *("--no-deps", "--only-binary=:all:", "--python-version", "3.11"),
    *("--platform", "manylinux_2_28_x86_64", "--retries", "1", "--timeout", "15"),
)


class LaunchError(Exception):
    """The environment cannot be made or used; the text says what to do."""


def main(argv: list[str]) -> int:
    """Prepare what is missing, then hand over; returns the exit code."""
    if sys.version_info < MINIMUM_PYTHON:
        wanted, found = (".".join(map(str, v[:2])) for v in (MINIMUM_PYTHON, sys.version_info))
        return complain(
            f"Python {wanted} or newer is needed, this is {found} ({sys.executable})", 1
        )
    from sdapi import __version__
    from sdapi.flags import FlagError, parse, split_command

    is_test = "--test" in argv
    cut = argv.index("--test") if is_test else len(argv)
    if argv[:1] == [ACCOUNT_COMMAND]:
        cut = 0  # its words are its own
    command, arguments = split_command(argv[:cut])
    try:
        flags = parse(arguments, os.environ)
    except FlagError as error:
        return complain(f"{error}\nlaunch.py --help lists every flag", 2)
    if flags["version"]:
        print(f"sdapi {__version__}")
        return 0
    try:
        prepare(argv, flags, is_test)
        if not command and argv[:1] != [ACCOUNT_COMMAND]:
            fetch_face_files(flags)
    except LaunchError as error:
        return complain(str(error), 1)
    except KeyboardInterrupt:
        return complain("interrupted; the next start goes on from here", 130)
    if flags["exit"]:
        return 0
    return run_tests(argv[cut + 1 :]) if is_test else serve(argv)


def complain(sentence: str, code: int) -> int:
    print(f"sdapi: {sentence}", file=sys.stderr)
    return code


def say(sentence: str) -> None:
    print(f"sdapi: {sentence}", flush=True)


def serve(argv: list[str]) -> int:
    from sdapi.cli import main as serve_until_stopped

    return serve_until_stopped(argv)


def run_tests(arguments: list[str]) -> int:
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])
    return 1  # not reached


def prepare(argv: list[str], flags: ParsedFlags, is_test: bool) -> None:
    """Return with every package in place, in this process or, by exec, in one inside `venv/`."""
    may_install = not (flags["skip_install"] or flags["skip_prepare_environment"])
    if not is_in_environment():
        enter_environment(argv, may_install)
    os.environ.pop(ENTERED, None)
    if may_install:
        command = flags["torch_command"] or os.environ.get("TORCH_COMMAND")
        files = [REQUIREMENTS, TEST_REQUIREMENTS] if is_test else [REQUIREMENTS]
        install_what_is_missing(files, command, flags["reinstall_torch"])
        return
    absent = [name for name in NEEDED_MODULES if importlib.util.find_spec(name) is None]
    if absent:
        again = shlex.join(["python3", str(ROOT / "launch.py"), "--exit"])
        raise LaunchError(
            f"{', '.join(absent)} not installed, and --skip-install was given; to install run\n"
            f"    {again}"
        )


# --- the environment -------------------------------------------------------------------------


def is_in_environment() -> bool:
    return sys.prefix != sys.base_prefix


def enter_environment(argv: list[str], may_install: bool) -> None:
    """Run this file again with the Python of `venv/`; returns only when there is none to enter."""
    venv = ROOT / "venv"
    if os.environ.get(ENTERED):
        raise LaunchError(
            f"{venv} is broken: its Python does not run in it; remove it, start again"
        )
    if not is_complete(venv):
        if not may_install:
            return
        with locked(ROOT):
            if not is_complete(venv):  # nobody made it while this process waited
                make_environment(venv)
    python = str(venv / "bin" / "python")
    sys.stdout.flush()
    arguments = [python, str(ROOT / "launch.py"), *argv]
    os.execve(python, arguments, {**os.environ, ENTERED: "1"})


def is_complete(venv: Path) -> bool:
    """True when the folder has a Python that exists and pip, which comes last when one is made."""
    return (venv / "bin" / "python").exists() and any(venv.glob("lib/python*/site-packages/pip"))


def make_environment(venv: Path) -> None:
    is_ours = (venv / "pyvenv.cfg").exists() or not venv.exists() or not any(venv.iterdir())
    if not is_ours:
        raise LaunchError(f"{venv} is there and is not a Python environment; move it away")
    say(f"making the environment {venv}")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=False)
    if made.returncode != 0 or not is_complete(venv):
        raise LaunchError(
            f"the environment {venv} could not be made. On Debian and Ubuntu Python's venv module "
            "is a package of its own: apt install python3-venv"
        )


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Let one process at a time change the folder; the lock ends with the process."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another process is preparing the environment; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# --- the packages ----------------------------------------------------------------------------


def install_what_is_missing(
    files: list[str], torch_command: str | None, reinstall_torch: bool
) -> None:
    """Bring this environment to the state of the files, unless the record says that it is."""
    if is_recorded(files, torch_command) and not reinstall_torch:
        return
    with locked(Path(sys.prefix)):
        if is_recorded(files, torch_command) and not reinstall_torch:
            return
        record = read_record()
        torch_command = torch_command or record.get("torch_command")
        lines = pinned_lines(files, without_torch=bool(torch_command))
        is_new_torch = bool(torch_command) and torch_command != record.get("torch_command")
        absent = [line for line in lines if not is_installed(line)]
        if absent or is_new_torch or reinstall_torch:
            # What fails half-way leaves no trace of having worked.
            write_record({"torch_command": record.get("torch_command")})
            announce_install(files, absent)
            if is_new_torch or reinstall_torch:
                install_torch(torch_command, files, reinstall_torch)
            if absent:
                install_lines(lines)
            importlib.invalidate_caches()
        digests = {name: digest(name) for name in files}
        kept = {name: value for name, value in record.items() if name == TEST_REQUIREMENTS}
        write_record({**kept, **digests, "torch_command": torch_command})


def announce_install(files: list[str], absent: list[str]) -> None:
    say(f"installing {' and '.join(files)} into {sys.prefix}: {len(absent)} packages to get")
    if any(name_of(line) == "torch" for line in absent):
        say("about 6 GB with the CUDA libraries; it takes some minutes, and only this once")
        if shutil.disk_usage(sys.prefix).free < SPACE_BYTES:
            say(f"warning: less than {SPACE_BYTES >> 30} GB are free on that disk")


def install_lines(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, REQUIREMENTS)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        pip("install", "-r", str(path))


def install_torch(command: str | None, files: list[str], again: bool) -> None:
    """As `--torch-command` says (`pip install torch==… --index-url …`), else as pinned."""
    force = ["--force-reinstall", "--no-deps"] if again else []
    if not command:
        lines = pinned_lines(files, without_torch=False)
        pip("install", *force, *(line for line in lines if is_torch(line)))
        return
    words = shlex.split(command)
    if words and words[0] in ("pip", "pip3"):
        pip(*words[1:], *force)
    elif not words or subprocess.run(words, check=False).returncode != 0:
        raise LaunchError(f"--torch-command failed: {command}")


def pip(*arguments: str) -> None:
    if importlib.util.find_spec("pip") is None:
        subprocess.run([sys.executable, "-m", "ensurepip"], check=False)
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    if subprocess.run(command, check=False).returncode != 0:
        raise LaunchError(
            "the packages could not be installed; pip's words above say why. The next start tries "
            "again. With another source for torch: --torch-command 'pip install torch==… …'"
        )


def pinned_lines(files: list[str], without_torch: bool) -> list[str]:
    lines: list[str] = []
    for name in files:
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            requirement = line.partition("#")[0].strip()
            if requirement and not (without_torch and is_torch(requirement)):
                lines.append(requirement)
    return lines


def name_of(requirement: str) -> str:
    return re.split(r"[\s\[=<>!~;@]", requirement, maxsplit=1)[0].lower()


def is_torch(requirement: str) -> bool:
    return name_of(requirement) in ("torch", "torchvision")


def is_installed(requirement: str) -> bool:
    """True when the pinned version is there; a build of it (`2.1.0+cpu`) counts as it."""
    version = requirement.partition(";")[0].partition("==")[2].strip()
    try:
        found = importlib.metadata.version(name_of(requirement))
    except importlib.metadata.PackageNotFoundError:
        return False
    return not version or found == version or found.startswith(f"{version}+")


# --- the face files --------------------------------------------------------------------------


def fetch_face_files(flags: ParsedFlags) -> None:
    """Get face mesh and matting into `models/face/`, once; without them lesser ones serve.

    Those of the checkout serve every data directory.
    """
    if flags["no_portrait"] or flags["skip_install"] or flags["skip_prepare_environment"]:
        return
    from sdapi.portrait.faces import files
    from sdapi.settings import SettingsError, settings_from

    try:
        folder = settings_from(flags, ROOT).models_dir / files.FOLDER
    except SettingsError:
        return  # told by what comes next
    has_failed = read_record().get(FACE_FILES) == str(folder)
    is_there = any(files.are_complete(each) for each in (folder, ROOT / "models" / files.FOLDER))
    if is_there or (has_failed and not flags["exit"]):
        return
    say(f"fetching two face models into {folder} (36 MB, of which 1.5 MB are kept)")
    try:
        with tempfile.TemporaryDirectory() as place:
            wheel = f"mediapipe=={files.MEDIAPIPE_VERSION}"
            pip("download", "--quiet", "--dest", place, *FACE_WHEEL, wheel)
            files.take_from_wheel(next(Path(place).glob("*.whl")), folder)
    except (LaunchError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        write_record({**read_record(), FACE_FILES: str(folder)})
        reason = "pip failed" if isinstance(error, LaunchError) else str(error)
        again = "`launch.py --exit` tries again"
        complain(f"warning: no face mesh ({reason}): 68 landmarks serve instead; {again}", 0)


# --- the record of what is installed ---------------------------------------------------------


def digest(name: str) -> str:
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def is_recorded(files: list[str], torch_command: str | None) -> bool:
    record = read_record()
    same_torch = torch_command in (None, record.get("torch_command"))
    return same_torch and all(record.get(name) == digest(name) for name in files)


def read_record() -> dict[str, str | None]:
    try:
        record = json.loads(Path(sys.prefix, RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(record: dict[str, str | None]) -> None:
    path = Path(sys.prefix, RECORD)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
