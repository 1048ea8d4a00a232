import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sdapi.cli import bind, main


def test_a_taken_port_is_named_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main([f"--port={port}", "--data-dir", str(tmp_path)]) == 1
    text = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 is in use" in text
    assert "--port N" in text


def test_an_address_that_is_not_ours_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--server-name", "203.0.113.7", "--data-dir", str(tmp_path)]) == 1
    assert "203.0.113.7" in capsys.readouterr().err


def test_a_data_directory_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").touch()
    assert main(["--data-dir", str(tmp_path / "file")]) == 1
    assert "--data-dir" in capsys.readouterr().err


def start_at_taken_port(data_dir: Path, *arguments: str) -> int:
    """Start as far as the port, which is in use."""
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        return main([f"--port={port}", "--data-dir", str(data_dir), *arguments])


def test_a_mounts_folder_that_is_not_there_is_made_and_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "results" / "deep"
    start_at_taken_port(tmp_path / "data", "--mount", str(folder))
    assert folder.is_dir()
    told = [line for line in capsys.readouterr().err.splitlines() if str(folder) in line]
    assert len(told) == 1
    assert "there was no such folder" in told[0]
    start_at_taken_port(tmp_path / "data", "--mount", str(folder))
    assert str(folder) not in capsys.readouterr().err


def test_a_mount_for_a_bucket_whose_folder_is_not_there_is_told_where_its_files_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "bucket"
    start_at_taken_port(tmp_path / "data", "--mount", f"{folder}=oss://examplebucket/data")
    assert not folder.exists()
    (told,) = [line for line in capsys.readouterr().err.splitlines() if str(folder) in line]
    assert f"{tmp_path / 'data'}/mounts" in told


@pytest.mark.parametrize("target", ["", "=oss://examplebucket/data"])
def test_a_mount_that_is_a_file_is_one_sentence_and_no_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
):
    (tmp_path / "file").touch()
    assert start_at_taken_port(tmp_path / "data", "--mount", f"{tmp_path / 'file'}{target}") == 1
    text = capsys.readouterr().err
    assert text == f"sdapi: --mount {tmp_path / 'file'}: cannot make this folder: File exists\n"


@pytest.mark.parametrize("content", [b"{ broken", b"[]", b"\xff\xfe"])
def test_a_broken_options_file_is_one_sentence_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
):
    (tmp_path / "config.json").write_bytes(content)
    assert main(["--data-dir", str(tmp_path), "--port=0"]) == 1
    text = capsys.readouterr().err
    assert text.startswith(f"sdapi: {tmp_path / 'config.json'} ")
    assert "move it away" in text
    assert text.count("\n") == 1


def test_an_options_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "config.json").mkdir()
    assert main(["--data-dir", str(tmp_path), "--port=0"]) == 1
    assert f"cannot read {tmp_path / 'config.json'}" in capsys.readouterr().err


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """The folder of a data directory with one checkpoint that is none."""
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    (folder / "anything.safetensors").write_bytes(b"cut")
    return folder


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--vae-path", "gone.pt", "no such file"),
        ("--vae-path", "models/Stable-diffusion/anything.safetensors", "neither a safetensors nor"),
        ("--ckpt", "nope", "'anything.safetensors'"),
        ("--ckpt", "anything", "neither a safetensors nor"),
        ("--ckpt", "{root}/gone/nope.safetensors", "'anything.safetensors'"),
        ("--portrait-checkpoint", "nope", "'anything.safetensors'"),
        ("--portrait-checkpoint-xl", "nope", "'anything.safetensors'"),
    ],
)
def test_a_flag_that_names_no_usable_model_stops_the_start_in_one_sentence(
    checkpoints: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flag: str,
    value: str,
    reason: str,
):
    value = value.format(root=tmp_path)
    if flag == "--vae-path":
        value = str(tmp_path / value)
    with bind("127.0.0.1", 0) as taken:  # which is not come to
        port = f"--port={taken.getsockname()[1]}"
        assert main([port, "--data-dir", str(tmp_path), flag, value]) == 1
    text = capsys.readouterr().err
    assert text.startswith(f"sdapi: {flag} {value}: "), text
    assert reason in text
    assert "in use" not in text


@pytest.mark.parametrize("flags", [("--portrait-url", "http://127.0.0.1:1"), ("--no-portrait",)])
def test_portrait_checkpoints_of_another_server_are_not_looked_for_here(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
):
    with bind("127.0.0.1", 0) as taken:  # at which the start fails instead
        port = f"--port={taken.getsockname()[1]}"
        arguments = ["--data-dir", str(tmp_path), "--portrait-checkpoint", "theirs.safetensors"]
        assert main([port, *arguments, *flags]) == 1
    assert "in use" in capsys.readouterr().err


def test_a_folder_of_models_that_is_not_there_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    missing = tmp_path / "nowhere"
    with bind("127.0.0.1", 0) as taken:
        port = f"--port={taken.getsockname()[1]}"
        assert main([port, "--data-dir", str(tmp_path), "--lora-dir", str(missing)]) == 1
    text = capsys.readouterr().err
    assert f"--lora-dir {missing}: there is no such folder" in text
    assert "in use" in text


@pytest.mark.parametrize("arguments", [["--lsten"], ["--port", "70000"], ["--api-auth", "x"]])
def test_mistakes_in_the_command_line_are_exit_code_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == 2
    assert arguments[0] in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "sdapi 0.1.0\n"


def test_an_early_client_waits_instead_of_being_refused():
    with bind("127.0.0.1", 0) as bound:
        socket.create_connection(bound.getsockname(), timeout=1).close()


def test_a_client_whose_machine_has_gone_is_noticed_within_two_minutes():
    with (
        bind("127.0.0.1", 0) as bound,
        socket.create_connection(bound.getsockname(), timeout=1),
        bound.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, pause, count = (
            accepted.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + pause * count <= 120


def test_ipv6_can_be_bound():
    with bind("::1", 0) as bound:
        assert bound.family == socket.AF_INET6


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("sdapi.cli", {"uvicorn", "fastapi", "pydantic", "httpx", "numpy", "PIL", "torch"}),
        ("sdapi.serving.server", {"pydantic", "numpy", "PIL", "torch"}),
        ("sdapi.services.fetching.fetcher", {"httpx", "numpy", "PIL", "torch"}),
        ("sdapi.app", {"torch", "diffusers", "transformers", "accelerate", "scipy", "cv2"}),
    ],
)
def test_importing_a_part_does_not_load_what_it_may_never_need(module: str, absent: set[str]):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not built yet")
    program = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert absent & set(done.stdout.split()) == set()
