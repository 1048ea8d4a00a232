import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from sdapi.services.catalog.model_files.weight_file import KnownProblems, problem_of, vae_problem_of

WEIGHTS = {"first_stage_model.decoder.conv_in.weight": torch.zeros(2, 3)}


def archive() -> bytes:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer)
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize("made", [lambda: save(WEIGHTS), archive, pickled])
def test_a_whole_file_of_any_layout_has_no_problem(tmp_path: Path, made: Callable[[], bytes]):
    path = tmp_path / "any.name"
    path.write_bytes(made())
    assert (problem_of(path), vae_problem_of(path)) == (None, None)


@pytest.mark.parametrize("made", [lambda: save(WEIGHTS), archive])
@pytest.mark.parametrize("left", [0.3, 0.9])
def test_a_file_that_ends_too_soon_is_cut_off(
    tmp_path: Path, made: Callable[[], bytes], left: float
):
    path = tmp_path / "model.safetensors"
    data = made()
    path.write_bytes(data[: int(len(data) * left)])
    assert "cut off" in str(problem_of(path))


@pytest.mark.parametrize(
    "content", [b"", b"weights", b"<html>no such model</html>", bytes(100), b"\x7fELF" * 9]
)
def test_other_files_are_told_to_be_none(tmp_path: Path, content: bytes):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    assert "neither a safetensors nor a PyTorch file" in str(problem_of(path))


@pytest.mark.parametrize("header", [b"{broken", b'{"a": {}}', b'{"a": 1}', b'{"a": null}'])
def test_a_header_that_makes_no_sense_is_told(tmp_path: Path, header: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "header is broken" in str(problem_of(path))


def test_a_missing_file_and_a_foreign_folder_are_told(tmp_path: Path):
    assert problem_of(tmp_path / "nothing") == "there is no such file"
    assert "model_index.json" in str(problem_of(tmp_path))
    (tmp_path / "model_index.json").touch()
    assert problem_of(tmp_path) is None


def test_a_file_without_a_decoder_is_no_vae(tmp_path: Path):
    path = tmp_path / "lora.safetensors"
    path.write_bytes(save({"lora_unet_x.lora_up.weight": torch.zeros(2)}))
    assert "no VAE" in str(vae_problem_of(path))


def test_a_file_is_read_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(WEIGHTS)[:-1])
    opened: list[Path] = []
    really_open = Path.open

    def noted(self: Path, mode: str = "r") -> Any:
        opened.append(self)
        return really_open(self, mode)

    known = KnownProblems()
    monkeypatch.setattr(Path, "open", noted)
    assert "cut off" in str(known.of(path))
    assert known.of(path) == known.of(path)
    assert len(opened) == 1
    path.write_bytes(save(WEIGHTS))
    opened.clear()
    assert [known.of(path), known.of(path)] == [None, None]
    assert len(opened) == 1


def test_what_could_not_be_read_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, known = tmp_path / "model.safetensors", KnownProblems()
    assert known.of(path) == "there is no such file"
    path.write_bytes(save(WEIGHTS))

    def fail(*_: object) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fail)
        assert known.of(path) == "it cannot be read (Input/output error)"
    assert known.of(path) is None
    assert known.of(tmp_path) == "it is a folder without model_index.json"
