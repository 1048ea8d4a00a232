"""Face plug-ins run files of random weights whose inputs and outputs are the published ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sdapi.portrait.faces.face import Face
from sdapi.portrait.faces.plug_ins.bisenet import REGIONS, BiSeNetParser
from sdapi.portrait.faces.plug_ins.insightface import ArcFaceEmbedder, ScrfdDetector, load_network
from sdapi.portrait.faces.plug_ins.opencv_zoo import SFaceEmbedder, YuNetDetector
from tests.models.onnx_files import OnnxFile
from tests.portraits.people import pixels

RANDOM = np.random.default_rng(3)


def random(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)


def embedder_file(path: Path, size: int, name: str, output: str) -> tuple[np.ndarray, np.ndarray]:
    """A face of 112 pixels to `size` numbers; the weights of its two layers."""
    file = OnnxFile(name, (1, 3, 112, 112))
    first, second = random(4, 3, 16, 16), random(size, 4 * 7 * 7)
    seen = file.node(
        "Conv", [name, file.tensor("first", first)], "seen", strides=[16, 16], kernel_shape=[16, 16]
    )
    flat = file.node("Flatten", [seen], "flat", axis=1)
    file.node("Gemm", [flat, file.tensor("second", second)], output, transB=1)
    file.output(output, (1, size))
    file.write(path)
    return first, second


@pytest.fixture(scope="module")
def face() -> Face:
    """Where a rendered person's face is; any points serve a random network."""
    side = pixels("person_0").shape[0]
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = side / 2 + side / 5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    box = (0.3 * side, 0.3 * side, 0.7 * side, 0.7 * side)
    eyes = np.array([[0.42 * side, 0.45 * side], [0.58 * side, 0.45 * side]], np.float32)
    return Face(box, 1.0, eyes, points.astype(np.float32))


def test_arcfaces_file_gives_what_its_layers_compute(tmp_path: Path, face: Face):
    path = tmp_path / "w600k_r50.onnx"
    first, second = embedder_file(path, 512, "input.1", "683")
    blob = random(1, 3, 112, 112)
    expected = F.conv2d(torch.tensor(blob), torch.tensor(first), stride=16).flatten(1)
    expected = expected @ torch.tensor(second).T

    (found,) = load_network(path)(blob)
    embedder = ArcFaceEmbedder.load(path)
    one, again, other = (
        embedder.embed(pixels(name), face) for name in ("person_0", "person_0", "stranger")
    )

    assert np.abs(found - expected.numpy()).max() < 1e-4
    assert one.shape == (512,)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(one, again)
    assert not np.allclose(one, other, atol=1e-3)


def test_sfaces_file_is_run_by_opencv(tmp_path: Path, face: Face):
    path = tmp_path / "face_recognition_sface_2021dec.onnx"
    embedder_file(path, 128, "data", "fc1")
    embedder = SFaceEmbedder(path)
    one, other = (embedder.embed(pixels(name), face) for name in ("person_0", "stranger"))
    assert one.shape == (128,)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(one, other, atol=1e-3)


def test_bisenets_file_tells_every_pixel_one_region(tmp_path: Path, face: Face):
    path = tmp_path / "79999_iter.onnx"
    file = OnnxFile("input", (1, 3, 512, 512))
    weights = random(19, 3, 1, 1)
    file.node("Conv", ["input", file.tensor("weights", weights)], "out", kernel_shape=[1, 1])
    file.output("out", (1, 19, 512, 512))
    file.write(path)

    def same(blob: np.ndarray) -> list[np.ndarray]:
        return [F.conv2d(torch.tensor(blob), torch.tensor(weights)).numpy()]

    found = BiSeNetParser.load(path).parse(pixels("person_0"), face)
    expected = BiSeNetParser(same, "the same").parse(pixels("person_0"), face)

    assert found.keys() == REGIONS.keys()
    for region, mask in found.items():
        assert np.abs(mask - expected[region]).mean() < 1e-3


def test_scrfds_file_with_nine_outputs_is_decoded(tmp_path: Path):
    path = tmp_path / "scrfd_10g_bnkps.onnx"
    file = OnnxFile("input.1", (1, 3, 640, 640))
    layers: list[tuple[int, int, np.ndarray]] = []
    for width, is_score in ((1, True), (4, False), (10, False)):
        for stride in (8, 16, 32):
            weights = random(2 * width, 3, stride, stride) * (8 if is_score else 1)
            name = f"{width}_{stride}"
            layers.append((width, stride, weights))
            seen = file.node(
                "Conv",
                ["input.1", file.tensor(f"weights_{name}", weights)],
                f"seen_{name}",
                strides=[stride, stride],
                kernel_shape=[stride, stride],
            )
            last = file.node("Transpose", [seen], f"last_{name}", perm=[0, 2, 3, 1])
            shape = file.tensor(f"shape_{name}", np.array([-1, width], np.int64))
            flat = file.node(
                "Reshape", [last, shape], f"out_{name}" if not is_score else f"r_{name}"
            )
            if is_score:
                flat = file.node("Sigmoid", [flat], f"out_{name}")
            file.output(flat, (2 * (640 // stride) ** 2, width))
    file.write(path)

    def same(blob: np.ndarray) -> list[np.ndarray]:
        found = []
        for width, stride, weights in layers:
            made = F.conv2d(torch.tensor(blob), torch.tensor(weights), stride=stride)
            made = made.permute(0, 2, 3, 1).reshape(-1, width)
            found.append((made.sigmoid() if width == 1 else made).numpy())
        return found

    ours = ScrfdDetector.load(path).detect(pixels("person_0"))
    theirs = ScrfdDetector(same, "the same").detect(pixels("person_0"))

    assert ours
    assert len(ours) == pytest.approx(len(theirs), abs=2)
    assert np.abs(np.array(ours[0].box) - np.array(theirs[0].box)).max() < 1


def test_yunets_file_with_twelve_outputs_is_run_by_opencv(tmp_path: Path):
    path = tmp_path / "face_detection_yunet_2023mar.onnx"
    file = OnnxFile("input", (1, 3, 320, 320))
    for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            name = f"{kind}_{stride}"
            weights = random(width, 3, stride, stride) * 0.02
            seen = file.node(
                "Conv",
                ["input", file.tensor(f"weights_{name}", weights)],
                f"seen_{name}",
                strides=[stride, stride],
                kernel_shape=[stride, stride],
            )
            last = file.node("Transpose", [seen], f"last_{name}", perm=[0, 2, 3, 1])
            shape = file.tensor(f"shape_{name}", np.array([1, -1, width], np.int64))
            is_share = kind in ("cls", "obj")
            flat = file.node("Reshape", [last, shape], f"flat_{name}" if is_share else name)
            if is_share:
                file.node("Sigmoid", [flat], name)
            file.output(name, (1, (320 // stride) ** 2, width))
    file.write(path)

    found = YuNetDetector(path).detect(pixels("person_0"))

    assert found
    assert all(0.7 <= one.score <= 1 and np.isfinite(one.box).all() for one in found)
    assert [one.box[0] for one in found] == sorted(one.box[0] for one in found)
