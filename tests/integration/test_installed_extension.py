"""An extension installed as a package into an environment of its own, from no index."""

import json
import re
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.servers import ROOT, ServerProcess, golden_data_dir, server_process

pytestmark = pytest.mark.slow

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "sdapi-grain"
version = "1.2.3"
urls = { Homepage = "https://example.org/grain" }

[project.entry-points."sdapi.extensions"]
grain = "sdapi_grain.hooks"
"""
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 1, "seed": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server in a fresh environment that has the extension of docs/extensions.md installed."""
    folder = tmp_path_factory.mktemp("installed")
    python = environment(folder / "venv")
    install(package(folder / "source"), python)
    data = golden_data_dir(folder / "data")
    with server_process(data, "--api", "--ckpt", "tinyA", python=python) as running:
        yield running


def environment(folder: Path) -> Path:
    """A virtual environment that sees the packages of this one and the project; its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site_packages = next(folder.glob("lib/python*/site-packages"))
    paths = [str(ROOT), *site.getsitepackages()]
    (site_packages / "shared.pth").write_text("\n".join(paths), encoding="utf-8")
    return python


def package(folder: Path) -> Path:
    """The source of a package that holds the documented extension."""
    document = (ROOT / "docs" / "extensions.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", document, re.S)
    assert code
    (folder / "sdapi_grain").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (folder / "sdapi_grain" / "__init__.py").touch()
    (folder / "sdapi_grain" / "hooks.py").write_text(code[1], encoding="utf-8")
    return folder


def install(source: Path, python: Path) -> None:
    command = [
        *(sys.executable, "-m", "pip", "--python", str(python), "install", str(source)),
        *("--no-index", "--no-deps", "--no-build-isolation", "--quiet"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def draw(server: ServerProcess, **body: Any) -> dict[str, Any]:
    answer = requests.post(f"{server.url}/sdapi/v1/txt2img", json=SMALL | body, timeout=120)
    assert answer.status_code == 200, answer.text[:1000]
    return json.loads(answer.json()["info"])


def test_it_is_listed_as_a_package(server: ServerProcess):
    (listed,) = requests.get(f"{server.url}/sdapi/v1/extensions", timeout=30).json()
    assert (listed["name"], listed["version"], listed["enabled"]) == ("grain", "1.2.3", True)
    assert listed["remote"] == "https://example.org/grain"


def test_its_scripts_are_in_script_info(server: ServerProcess):
    info = requests.get(f"{server.url}/sdapi/v1/script-info", timeout=30).json()
    kinds = {each["name"]: each["is_alwayson"] for each in info}
    assert kinds["loud"] is True
    assert kinds["seed list"] is False


def test_its_always_on_script_acts(server: ServerProcess):
    info = draw(server, alwayson_scripts={"loud": {"args": [True, 2]}})
    assert info["prompt"] == "A CAT!!"


def test_its_selectable_script_draws(server: ServerProcess):
    info = draw(server, script_name="seed list", script_args=[[7, 8]])
    assert info["all_seeds"] == [7, 8]


def test_its_route_answers(server: ServerProcess):
    titles = requests.get(f"{server.url}/grain/checkpoints", timeout=30).json()
    assert any(title.startswith("tinyA") for title in titles)
