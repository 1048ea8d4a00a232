"""The plug-in for fusion by a network: its matrix, what the network is given, where it goes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdapi.portrait.faces.face import FaceError
from sdapi.portrait.faces.plug_ins.inswapper import InSwapper, embedder_beside
from sdapi.portrait.faces.plug_ins.onnx_tensors import last_initializer
from sdapi.portrait.faces.providers import Choices, Providers
from sdapi.settings import SettingsError
from tests.models.onnx_files import pb, varint
from tests.portraits.people import pixels


def tensor(values: np.ndarray, *, is_packed: bool, kind: int = 1) -> bytes:
    dims = (
        pb(1, b"".join(varint(side) for side in values.shape))
        if is_packed
        else b"".join(pb(1, side) for side in values.shape)
    )
    return dims + pb(2, kind) + pb(8, b"name") + pb(9, values.astype("<f4").tobytes())


def model(*tensors: bytes) -> bytes:
    graph = pb(2, b"graph") + b"".join(pb(5, each) for each in tensors)
    return pb(1, 8) + pb(7, graph) + pb(8, b"opset")


@pytest.mark.parametrize("is_packed", [False, True])
def test_the_last_tensor_of_a_file_is_read(tmp_path: Path, is_packed: bool):
    wanted = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "x.onnx"
    path.write_bytes(
        model(tensor(np.zeros((4,)), is_packed=False), tensor(wanted, is_packed=is_packed))
    )
    found = last_initializer(path)
    assert found is not None
    assert (found == wanted).all()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"no protobuf", model(), model(tensor(np.zeros((2,)), is_packed=False, kind=7)),
     model(tensor(np.zeros((2,)), is_packed=False))[:-9]],
)  # fmt: skip
def test_a_file_of_another_kind_has_none(tmp_path: Path, content: bytes):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert last_initializer(path) is None


def test_a_file_that_is_no_inswapper_is_named(tmp_path: Path):
    path = tmp_path / "inswapper_128.onnx"
    path.write_bytes(model(tensor(np.zeros((2, 2)), is_packed=False)))
    (tmp_path / "w600k_r50.onnx").write_bytes(b"")
    with pytest.raises(FaceError, match="inswapper_128"):
        InSwapper.load(path)


def test_it_is_taken_only_with_the_embedder_that_it_was_made_for(tmp_path: Path):
    folder = tmp_path / "insightface"
    folder.mkdir()
    (folder / "inswapper_128.onnx").write_bytes(b"")
    assert Choices.make(tmp_path, {}).by_role["swapper"].candidate.name == "warp"
    with pytest.raises(SettingsError, match="w600k"):
        Choices.make(tmp_path, {"swapper": "inswapper"})
    for stranger in ("glintr100.onnx", "w600k_mbf.onnx"):  # in whose spaces it does not work
        (folder / stranger).write_bytes(b"")
    assert Choices.make(tmp_path, {}).by_role["swapper"].candidate.name == "warp"
    assert embedder_beside(folder / "inswapper_128.onnx") is None
    own = folder / "w600k_r50.onnx"
    own.write_bytes(b"")
    chosen = Choices.make(tmp_path, {}).by_role
    assert chosen["swapper"].candidate.name == "inswapper"
    assert embedder_beside(folder / "inswapper_128.onnx") == own
    # Which people are compared with is another matter.
    assert chosen["embedder"].path == folder / "glintr100.onnx"


def test_the_swapped_square_is_laid_over_the_face_alone():
    providers = Providers(Choices.make(Path("/nowhere"), {}))
    rgb = pixels("person_0")
    face = providers.landmarks.locate(rgb, providers.detector.detect(rgb)[0])
    given: list[Any] = []

    def network(target: np.ndarray, source: np.ndarray) -> np.ndarray:
        given.extend([target, source])
        return np.full((1, 3, 128, 128), 1.0, np.float32)

    vector = np.zeros(512, np.float32)
    vector[3] = 2.0
    embedder: Any = SimpleNamespace(embed=lambda rgb, face: vector)
    matrix = np.eye(512, dtype=np.float32)[::-1].copy()
    swapped = InSwapper(network, matrix, embedder, "inswapper_128").swap(rgb, face, rgb, face)
    target, source = given
    assert target.shape == (1, 3, 128, 128)
    assert 0 <= target.min() <= target.max() <= 1
    assert source.shape == (1, 512)
    assert source[0, 508] == pytest.approx(1.0)
    nose = np.rint(face.points68[30]).astype(int) if face.points68 is not None else [0, 0]
    assert swapped[nose[1], nose[0]].tolist() == [255, 255, 255]
    assert (swapped[:20] == rgb[:20]).all()
    bare: Any = SimpleNamespace(points68=None)
    with pytest.raises(FaceError):
        InSwapper(network, matrix, embedder, "x").swap(rgb, bare, rgb, face)
