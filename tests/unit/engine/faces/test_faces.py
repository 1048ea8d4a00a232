"""Finding faces, taking them out of pictures, and putting them back."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from sdapi.engine.faces.alignment import align, put_back
from sdapi.engine.faces.detector import Face, FaceDetector, Guesses
from sdapi.engine.faces.parser import FaceParser
from sdapi.engine.faces.restorer import GFPGAN, FaceModels, FaceRestoration
from sdapi.engine.faces.restoring import restore_faces
from sdapi.engine.models.device_models import Models
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import ModelUnusable
from tests.engines import cpu_models

CPU = torch.device("cpu")
#: eyes, nose, corners of the mouth of an upright face about 100 pixels wide
POINTS = np.array([[80, 90], [120, 90], [100, 115], [85, 135], [115, 135]], np.float32)


@pytest.fixture
def models() -> Models:
    return cpu_models()


def write(network: torch.nn.Module, path: Path) -> ModelFile:
    """As the published files are: without counters, under names of parallel training."""
    state = {
        f"module.{name}": tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(state, path)
    return ModelFile.of(path)


def drawn_face() -> np.ndarray:
    image = Image.new("RGB", (200, 200), (90, 120, 150))
    draw = ImageDraw.Draw(image)
    draw.ellipse((50, 40, 150, 170), fill=(220, 180, 150))
    for x, y in POINTS:
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(40, 30, 30))
    return np.asarray(image)


class OneGuess(FaceDetector):
    """A detector whose network is sure of one guess, moved by so much; no body runs."""

    def __init__(self, guess: int, box: list[float], points: list[list[float]]) -> None:
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self._guess, self._box, self._points = guess, box, points

    def forward(self, pixels: Tensor) -> Guesses:
        height, width = pixels.shape[-2:]
        count = sum(2 * math.ceil(height / s) * math.ceil(width / s) for s in (8, 16, 32))
        boxes, points = torch.zeros(count, 4), torch.zeros(count, 5, 2)
        scores = torch.zeros(count)
        scores[self._guess] = 0.99
        boxes[self._guess] = torch.tensor(self._box)
        points[self._guess] = torch.tensor(self._points)
        return Guesses(boxes, scores, points)


def test_guesses_are_read_relative_to_their_boxes():
    # the second box of the third cell in the first row: centre (20, 4), 32 pixels wide
    detector = OneGuess(5, [0, 0, 0, 0], [[-1, 0], [1, 0], [0, 0], [-1, 1], [1, 1]])
    (face,) = detector.find(np.zeros((64, 64, 3), np.uint8))
    expected = [[16.8, 4], [23.2, 4], [20, 4], [16.8, 7.2], [23.2, 7.2]]
    assert np.allclose(face.points, expected)
    assert face.eye_distance == pytest.approx(6.4)


def test_network_of_the_published_layout_looks_at_every_place():
    torch.manual_seed(0)
    detector = FaceDetector().eval()
    with torch.inference_mode():
        guesses = detector(torch.rand(1, 3, 64, 96) * 255)
    count = 2 * (8 * 12 + 4 * 6 + 2 * 3)
    assert guesses.boxes.shape == (count, 4)
    assert guesses.points.shape == (count, 5, 2)
    names = set(detector.state_dict())
    assert {"body.layer4.2.conv3.weight", "fpn.output3.0.weight", "fpn.merge1.1.bias"} <= names
    assert {"ssh1.conv7x7_3.0.weight", "ClassHead.2.conv1x1.bias"} <= names
    assert not any(name.startswith("body.fc") for name in names)


def test_aligned_face_has_its_eyes_where_restorers_expect_them():
    aligned = align(drawn_face(), Face(POINTS))
    assert aligned is not None
    assert aligned.pixels.shape == (512, 512, 3)
    eyes = np.c_[POINTS[:2], np.ones(2)] @ aligned.to_face.T
    assert np.abs(eyes - [[193, 240], [319, 240]]).max() < 12


def test_face_put_back_unchanged_leaves_the_picture_as_it_was():
    picture = drawn_face()
    aligned = align(picture, Face(POINTS))
    assert aligned is not None
    whole = put_back(picture.astype(float), aligned.pixels, np.ones((512, 512)), aligned)
    inside = np.s_[70:150, 70:130]
    assert np.abs(whole[inside] - picture[inside]).mean() < 4
    nothing = put_back(picture.astype(float), aligned.pixels, np.zeros((512, 512)), aligned)
    assert np.array_equal(nothing, picture)


def test_points_in_one_place_are_no_face_to_align():
    assert align(drawn_face(), Face(np.zeros((5, 2), np.float32))) is None


def test_parser_of_the_published_layout_tells_classes_of_every_pixel():
    torch.manual_seed(0)
    parser = FaceParser().eval()
    with torch.inference_mode():
        assert parser(torch.zeros(1, 3, 64, 64)).shape == (1, 19, 64, 64)
    names = set(parser.state_dict())
    assert {"encoder.1.shortcut_func.conv2d.bias", "body.9.conv2.norm.norm.weight"} <= names
    assert {"decoder.3.conv1.conv2d.weight", "out_img_conv.conv2d.weight"} <= names
    assert "body.0.shortcut_func.conv2d.weight" not in names
    assert "body.0.conv1.conv2d.bias" not in names


def test_mask_is_soft_and_never_reaches_the_border():
    class Checkered(FaceParser):
        def forward(self, pixels: Tensor) -> Tensor:
            scores = torch.zeros(1, 19, 512, 512)
            scores[:, 1, :, :256] = 1  # skin on the left, background on the right
            return scores

    mask = Checkered().mask(torch.zeros(3, 512, 512))
    assert mask[256, 100] == pytest.approx(1, abs=1e-6)
    assert mask[256, 400] == pytest.approx(0, abs=1e-6)
    assert 0.3 < mask[256, 256] < 0.7
    assert mask[:10].max() == mask[:, :10].max() == mask[-10:].max() == mask[:, -10:].max() == 0


def test_restorer_without_its_files_leaves_the_picture_and_says_so(models: Models):
    image = Image.new("RGBA", (8, 8))
    asked = FaceRestoration(GFPGAN, None, "GFPGAN: models/GFPGAN lacks a GFPGAN model")
    assert restore_faces(models, image, asked) == (image, (asked.missing,))


def test_picture_without_faces_stays_as_it_is(models: Models, tmp_path: Path):
    torch.manual_seed(0)
    detector = FaceDetector()
    for head in detector.ClassHead:
        torch.nn.init.zeros_(head.conv1x1.weight)
        head.conv1x1.bias.data = torch.tensor([9.0, -9.0] * 2)  # never a face
    file = write(detector, tmp_path / "detection_Resnet50_Final.pth")
    asked = FaceRestoration(GFPGAN, FaceModels(file, file, file))
    image = Image.fromarray(drawn_face())
    restored, warnings = restore_faces(models, image, asked)
    assert warnings == ()
    assert restored.tobytes() == image.tobytes()


def test_file_of_another_kind_is_named(models: Models, tmp_path: Path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "detection_Resnet50_Final.pth")
    file = ModelFile.of(tmp_path / "detection_Resnet50_Final.pth")
    asked = FaceRestoration(GFPGAN, FaceModels(file, file, file))
    with pytest.raises(ModelUnusable, match=r"^detection_Resnet50_Final\.pth lacks"):
        restore_faces(models, Image.fromarray(drawn_face()), asked)


def sure_of_one_face(image: Image.Image) -> FaceDetector:
    """A random network of which a single guess passes for a face in this picture."""
    detector = FaceDetector().eval()
    for head in detector.ClassHead[:2]:
        torch.nn.init.zeros_(head.conv1x1.weight)
        head.conv1x1.bias.data = torch.tensor([99.0, -99.0] * 2)
    classes, points = detector.ClassHead[2].conv1x1, detector.LandmarkHead[2].conv1x1
    torch.nn.init.zeros_(points.weight)
    upright = (POINTS - POINTS.mean(axis=0)) / 20
    points.bias.data = torch.from_numpy(np.concatenate([upright, upright]).flatten())
    seen = np.asarray(image.resize((640, 640), Image.Resampling.LANCZOS))[:, :, ::-1].copy()
    pixels = torch.from_numpy(seen).float().permute(2, 0, 1)[None]
    with torch.inference_mode():
        classes.weight *= 0.1 / classes(features_of(detector, pixels)).abs().max()
        scores = detector(pixels).scores[-800:]  # the coarsest level's 20 x 20 x 2
    first, second = scores.double().logit().topk(2).values.tolist()
    classes.bias.data[1::2] += torch.tensor(0.97).logit().item() - (first + second) / 2
    return detector


def features_of(detector: FaceDetector, pixels: Tensor) -> Tensor:
    """What the coarsest heads look at."""
    return detector.ssh3(detector.fpn(*detector.body(pixels).values())[2])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_gfpgan_of_the_real_layout_repaints_the_face_alone(models: Models, tmp_path: Path):
    from spandrel.architectures.GFPGAN.__arch.gfpganv1_clean_arch import GFPGANv1Clean

    torch.manual_seed(0)
    detector = sure_of_one_face(Image.fromarray(drawn_face()))
    for name, network in (("detector", detector), ("parser", FaceParser())):
        write(network, tmp_path / f"{name}.pth")
    torch.save({"params_ema": GFPGANv1Clean().state_dict()}, tmp_path / "GFPGANv1.4.pth")
    names = ("GFPGANv1.4", "detector", "parser")
    files = FaceModels(*(ModelFile.of(tmp_path / f"{name}.pth") for name in names))
    image = Image.fromarray(drawn_face())
    one, _ = restore_faces(models, image, FaceRestoration(GFPGAN, files))
    half, _ = restore_faces(models, image, FaceRestoration(GFPGAN, files, visibility=0.5))
    assert one.size == image.size
    assert one.tobytes() != image.tobytes()
    # so the same picture comes out every time
    assert half.tobytes() == Image.blend(image, one, 0.5).tobytes()
