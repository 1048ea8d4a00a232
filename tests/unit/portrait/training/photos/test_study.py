"""Face tasks of training on rendered people, with the built-in providers, in this process."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from sdapi.portrait.checking import Code
from sdapi.portrait.faces.pose import eye_centres
from sdapi.portrait.faces.providers import Choices, Providers
from sdapi.portrait.training.photos.study import (
    cut_person,
    cut_scene,
    only_face,
    recognise,
    sharpness,
    study,
)
from tests.portraits.people import photo, pixels


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Providers:
    return Providers(Choices.make(tmp_path_factory.mktemp("models"), {}))


def decoded(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def test_a_photo_is_described(providers: Providers):
    studied = study(providers, photo("person_0"))
    assert studied.checked.code is Code.SUCCESS
    assert studied.jpeg is not None
    assert decoded(studied.jpeg).shape == pixels("person_0").shape
    assert studied.look is not None
    assert abs(studied.look.roll) < 15
    assert studied.look.sharpness > 5
    assert studied.reference is not None
    assert studied.reference.yaw == studied.look.yaw
    assert set(studied.providers) == {"detector", "landmarks", "embedder", "matting"}


def test_a_photo_without_a_face_is_kept_but_not_described(providers: Providers):
    studied = study(providers, photo("nobody"))
    assert studied.checked.code is Code.NOT_ONE_FACE
    assert studied.jpeg is not None
    assert studied.look is None


def test_bytes_that_are_no_picture_are_nothing(providers: Providers):
    studied = study(providers, b"no picture")
    assert (studied.checked.code, studied.jpeg) == (Code.NOT_DECODED, None)


def test_of_two_people_the_left_one_is_meant(providers: Providers):
    studied = study(providers, photo("two"))
    assert studied.checked.code is Code.NOT_ONE_FACE
    assert studied.box is not None
    assert studied.box[2] < pixels("two").shape[1] / 2


def test_a_crop_shows_the_person_on_white(providers: Providers):
    studied = study(providers, photo("person_1"))
    assert studied.jpeg is not None
    assert studied.box is not None
    cut = cut_person(providers, studied.jpeg, studied.box, 3.0)
    assert cut is not None
    picture = decoded(cut).astype(int)
    is_white = (picture > 245).all(axis=2)
    assert 0.3 < is_white.mean() < 0.97
    # The corners are far from any face, the middle is one.
    assert is_white[:8, :8].all()
    middle = is_white[is_white.shape[0] * 2 // 5 : is_white.shape[0] // 2]
    assert not middle[:, middle.shape[1] * 2 // 5 : middle.shape[1] * 3 // 5].all()


def test_a_crop_without_a_face_is_left_out(providers: Providers):
    assert cut_person(providers, photo("nobody"), (100, 100, 200, 200), 1.5) is None


def test_a_scene_is_a_square_with_all_its_colours(providers: Providers):
    cut = decoded(cut_scene(providers, photo("person_0"), 3.0))
    assert cut.shape[0] == cut.shape[1]
    whole = decoded(cut_scene(providers, photo("nobody"), 3.0))
    assert whole.shape == pixels("nobody").shape


def test_a_face_is_recognised_also_in_a_small_picture(providers: Providers):
    small = io.BytesIO()
    Image.open(io.BytesIO(photo("person_0"))).resize((160, 160)).save(small, "PNG")
    found, stranger = (
        recognise(providers, small.getvalue()),
        recognise(providers, photo("stranger")),
    )
    own = recognise(providers, photo("person_0"))
    assert found is not None
    assert own is not None
    assert stranger is not None
    assert np.linalg.norm(found - own) < np.linalg.norm(stranger - own)
    assert recognise(providers, photo("nobody")) is None


def test_only_a_single_face_makes_a_template(providers: Providers):
    box = only_face(providers, photo("person_0"))
    assert box is not None
    assert 0 < box[0] < box[2] < 320
    assert only_face(providers, photo("two")) is None
    assert only_face(providers, photo("nobody")) is None


def test_blur_lowers_sharpness(providers: Providers):
    rgb = pixels("person_0")
    face = providers.landmarks.locate(rgb, providers.detector.detect(rgb)[0])
    assert face.points68 is not None
    eyes = eye_centres(face.points68)
    values = [sharpness(rgb, eyes)]
    for sigma in (1.0, 2.0, 4.0):
        blurred = np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma), np.uint8)
        values.append(sharpness(blurred, eyes))
    assert values == sorted(values, reverse=True)
    assert values[-1] < 8


def test_a_larger_face_beside_the_persons_is_not_cut_out(providers: Providers):
    small = cv2.resize(pixels("person_0"), (160, 160), interpolation=cv2.INTER_AREA)
    beside = np.full((320, 160, 3), 128, np.uint8)
    beside[80:240] = small
    rgb = np.hstack([beside, pixels("stranger")])
    faces = providers.detector.detect(rgb)
    assert len(faces) == 2
    assert faces[1].width > 1.5 * faces[0].width
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "PNG")
    crop = cut_person(providers, data.getvalue(), faces[0].box, 5.0)
    assert crop is not None
    cut, person, stranger = (
        recognise(providers, each) for each in (crop, photo("person_0"), photo("stranger"))
    )
    assert cut is not None
    assert person is not None
    assert stranger is not None
    assert np.linalg.norm(cut - person) < np.linalg.norm(cut - stranger)


def test_what_is_trained_on_is_no_larger_than_anything_learns(providers: Providers):
    large = cv2.resize(pixels("person_0"), (4096, 4096), interpolation=cv2.INTER_LINEAR)
    data = io.BytesIO()
    Image.fromarray(large).save(data, "JPEG", quality=90)
    assert decoded(cut_scene(providers, data.getvalue(), 0.5)).shape == (2048, 2048, 3)
