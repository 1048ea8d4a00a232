"""The README's commands, as a reader pastes them."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_png_info_example_takes_a_picture_longer_than_an_argument_may_be(tmp_path: Path):
    (example,) = re.findall(r"\n((?: {4}.*\n)*.*/png-info .*\n)", README.read_text())
    curl = tmp_path / "curl"
    curl.write_text("#!/bin/sh\ncat\n")
    curl.chmod(0o755)
    picture = os.urandom(1 << 20)
    (tmp_path / "picture.png").write_bytes(picture)
    done = subprocess.run(
        ["bash", "-c", example],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert base64.b64decode(json.loads(done.stdout)["image"]) == picture
