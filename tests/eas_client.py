"""The original's Python client, as its users install it, in an environment of its own."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements-eas-client.txt"


def client_python(requirements: Path = _REQUIREMENTS) -> Path:
    """A Python that has `eas_prediction`, or what is asked for; made once, kept in `tests/.cache`.

    Skips the test where packages cannot be installed.
    """
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = _HERE / ".cache" / f"{requirements.stem.removeprefix('requirements-')}-{digest}"
    folder.parent.mkdir(exist_ok=True)
    done = folder / "complete"
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _install(folder, requirements)
            done.touch()
    return folder / "bin" / "python"


def _install(folder: Path, requirements: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    for command in (
        [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)],
        [*pip, "install", "-q", "--no-input", "--no-compile", "-r", str(requirements)],
    ):
        made = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if made.returncode != 0:
            pytest.skip(f"the client cannot be installed here: {made.stderr[-300:]}")
