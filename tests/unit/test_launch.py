"""The launcher over a small project of its own, whose one requirement is a wheel made here."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CLI = """
import sys
def main(argv):
    import tiny
    print("served", tiny.VERSION, sys.prefix, *argv)
    return 5
"""

PYTEST = """
import sys
print("tested", *sys.argv[1:])
raise SystemExit(3)
"""


#: what the launcher imports before there is an environment
COPIED = (
    *("launch.py", "sdapi/__init__.py", "sdapi/errors.py"),
    *(f"sdapi/flags/{name}.py" for name in ("__init__", "command_line", "environment", "flag")),
    *(f"sdapi/flags/{name}.py" for name in ("own", "parsing", "table", "values", "webui")),
    *("sdapi/object_url.py", "sdapi/settings/__init__.py", "sdapi/settings/settings.py"),
    *("sdapi/settings/flag_values.py", "sdapi/settings/from_flags.py"),
    *("sdapi/portrait/__init__.py", "sdapi/portrait/faces/__init__.py"),
    "sdapi/portrait/faces/files.py",
)


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    info = f"{name}-{version}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in (files | metadata).items():
            wheel.writestr(path, text)
        record = "".join(f"{path},,\n" for path in [*files, *metadata, f"{info}/RECORD"])
        wheel.writestr(f"{info}/RECORD", record)


class Project:
    """A checkout with the real launcher, and a folder of wheels in place of the network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder.parent / "wheels"  # pip takes no spaces there
        self.record = folder / "venv" / "sdapi-installed.json"
        self.wheels.mkdir()
        for name in COPIED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        (folder / "sdapi/cli.py").write_text(CLI)
        for version in ("1.0", "2.0"):
            files = {"tiny.py": f"VERSION = {version!r}\n"}
            make_wheel(self.wheels, "tiny", version, files)
        make_wheel(self.wheels, "pytest", "1.0", {"pytest.py": PYTEST})
        self.require("tiny==1.0")
        (folder / "requirements-test.txt").write_text("pytest==1.0  # a fake\n")

    def require(self, line: str) -> None:
        (self.folder / "requirements.txt").write_text(f"# comment\n\n{line}\n")

    def launch(
        self, *arguments: str, python: str = sys.executable, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        plain = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        offline = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": "/dev/null",
        }
        return subprocess.run(
            [python, str(self.folder / "launch.py"), *arguments],
            env=plain | offline | environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def outside() -> str:
    """A Python that runs in no virtual environment: the one this environment was made from."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return str(Path(sys.base_prefix) / "bin" / version)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose environment a first start has made."""
    project = Project(tmp_path_factory.mktemp("project") / "a folder")
    first = project.launch("--listen", python=outside())
    assert first.returncode == 5, first.stderr
    assert f"making the environment {project.folder}/venv" in first.stdout
    assert f"served 1.0 {project.folder}/venv --listen" in first.stdout
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without an environment."""
    return Project(tmp_path / "project")


def test_a_second_start_installs_nothing(prepared: Project):
    again = prepared.launch(python=outside(), PIP_FIND_LINKS="/nowhere")
    assert again.returncode == 5
    assert again.stdout == f"served 1.0 {prepared.folder}/venv\n"


def test_looking_after_queues_fetches_no_models(prepared: Project, tmp_path: Path):
    done = prepared.launch("queue", "list", "--data-dir", str(tmp_path), python=outside())
    assert "served 1.0" in done.stdout
    assert "face models" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_the_tests_get_their_packages_and_arguments(prepared: Project):
    first = prepared.launch("--test", "-k", "some", python=outside())
    assert first.returncode == 3
    assert "installing requirements.txt and requirements-test.txt" in first.stdout
    assert first.stdout.endswith("tested -k some\n")
    again = prepared.launch("--test", python=outside(), PIP_FIND_LINKS="/nowhere")
    assert again.stdout == "tested\n"


def test_changed_requirements_are_installed_and_a_failure_is_not_recorded(prepared: Project):
    prepared.require("tiny==2.0")
    failed = prepared.launch(python=outside(), PIP_FIND_LINKS="/nowhere")
    assert failed.returncode == 1
    assert "could not be installed" in failed.stderr
    assert "requirements.txt" not in prepared.record.read_text()
    prepared.require("tiny==1.0")
    repaired = prepared.launch(python=outside(), PIP_FIND_LINKS="/nowhere")
    assert "served 1.0" in repaired.stdout  # it was there all the time
    prepared.require("tiny==2.0")
    changed = prepared.launch("--exit", python=outside())
    assert changed.returncode == 0
    assert prepared.launch(python=outside()).stdout.startswith("served 2.0")


def test_inside_a_virtual_environment_that_one_is_used(prepared: Project, project: Project):
    inside = str(prepared.folder / "venv" / "bin" / "python")
    (prepared.record).unlink()
    project.require("tiny==2.0")
    done = project.launch("--port=1", python=inside)
    assert done.returncode == 5, done.stderr
    assert f"served 2.0 {prepared.folder}/venv --port=1\n" in done.stdout
    assert not (project.folder / "venv").exists()


def test_skip_install_enters_an_environment_that_is_there(prepared: Project):
    prepared.require("tiny==9.9")
    (prepared.folder / "sdapi/cli.py").write_text("def main(argv): return 7")
    for name in ("fastapi", "uvicorn", "torch", "diffusers"):
        (prepared.folder / f"{name}.py").touch()
    done = prepared.launch("--skip-install", python=outside())
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def test_skip_install_without_packages_says_what_to_run(project: Project):
    done = project.launch("--skip-install", python=outside())
    assert done.returncode == 1
    assert "torch" in done.stderr
    assert f"python3 {project.folder}/launch.py --exit" in done.stderr
    assert not (project.folder / "venv").exists()


def test_a_folder_that_is_no_environment_is_left_alone(project: Project):
    (project.folder / "venv").mkdir()
    (project.folder / "venv" / "mine").touch()
    done = project.launch(python=outside())
    assert done.returncode == 1
    assert "move it away" in done.stderr
    assert (project.folder / "venv" / "mine").exists()


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_help_and_version_need_no_environment(project: Project, argument: str):
    done = project.launch(argument, python=outside())
    assert done.returncode == 0
    assert "sdapi 0.1.0" in done.stdout or "--data-dir" in done.stdout
    assert not (project.folder / "venv").exists()


def test_a_mistyped_flag_is_told_before_anything_is_installed(project: Project):
    done = project.launch("--lsten", python=outside())
    assert done.returncode == 2
    assert "'--listen'" in done.stderr
    assert not (project.folder / "venv").exists()


def test_an_old_python_is_told_which_one_is_needed(project: Project):
    program = (
        "import sys, runpy; sys.version_info = (3, 9, 1, 'final', 0);"
        "sys.argv[:] = ['launch.py']; runpy.run_path('launch.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed, this is 3.9" in done.stderr


def test_torch_command_replaces_the_pinned_torch(prepared: Project, tmp_path: Path):
    project = Project(tmp_path / "project")
    (project.folder / "requirements.txt").write_text("torch==1.0\ntorchvision==1.0\ntiny==1.0\n")
    make_wheel(project.wheels, "torch", "7.0", {"torch.py": ""})
    own = ["--torch-command", "pip install torch==7.0"]
    done = project.launch(*own, python=outside())
    assert done.returncode == 5, done.stderr
    again = project.launch(python=outside(), PIP_FIND_LINKS="/nowhere")
    assert again.stdout.startswith("served 1.0")
    failed = project.launch("--torch-command", "pip install torch==8.0", python=outside())
    assert failed.returncode == 1


def test_webui_sh_hands_everything_on(prepared: Project):
    shutil.copy(ROOT / "webui.sh", prepared.folder / "webui.sh")
    done = subprocess.run(
        [prepared.folder / "webui.sh", "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.stdout == "sdapi 0.1.0\n"
