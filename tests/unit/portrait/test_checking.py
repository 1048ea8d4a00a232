"""The rules of a check, apart from any network."""

import io

import numpy as np
import pytest
from PIL import Image

from sdapi.errors import BadImage
from sdapi.portrait.checking import (
    MESSAGES,
    Code,
    Looked,
    PhotoResult,
    mark_strangers,
    people_in,
    strangers,
)
from sdapi.portrait.faces.face import Face
from sdapi.portrait.photos import decode_photo


def vectors(*angles: float) -> list[np.ndarray]:
    """Unit vectors in a plane, at these angles in degrees."""
    return [np.array([np.cos(a), np.sin(a), 0.0], np.float32) for a in np.radians(angles)]


def face(left: float, width: float) -> Face:
    return Face((left, 0.0, left + width, width), 1.0, np.zeros((2, 2), np.float32))


def file_of(image: Image.Image, fmt: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, fmt, **options)
    return data.getvalue()


def test_one_picture_is_nobodys_stranger():
    assert strangers([], "l2", 0.45) == set()
    assert strangers(vectors(0), "l2", 0.45) == set()


def test_who_is_far_from_the_rest_is_the_stranger():
    assert strangers(vectors(0, 5, 90, -5), "l2", 0.45) == {2}
    assert strangers(vectors(0, 5, 90, -5), "cosine", 0.6) == {2}


def test_nearly_half_may_be_strangers():
    assert strangers(vectors(0, 2, 4, 90, 180), "l2", 0.45) == {3, 4}


def test_the_order_of_pictures_does_not_matter():
    angles = (0, 5, 30, 90, -5, 200)
    expected = {angles[i] for i in strangers(vectors(*angles), "l2", 0.45)}
    turned = angles[::-1]
    assert {turned[i] for i in strangers(vectors(*turned), "l2", 0.45)} == expected


def test_a_stranger_is_not_frontal_and_a_failed_picture_is_not_compared():
    a, b, c = vectors(0, 5, 90)
    looked = [
        Looked(Code.SUCCESS, True, a, "l2", 0.45),
        Looked(Code.NOT_ONE_FACE),
        Looked(Code.SUCCESS, False, b, "l2", 0.45),
        Looked(Code.SUCCESS, True, c, "l2", 0.45),
        Looked(Code.SUCCESS, True, a, "l2", 0.45),
    ]
    marked = mark_strangers(looked)
    assert [one.code for one in marked] == [1, 3, 1, 6, 1]
    assert [one.is_frontal for one in marked] == [True, False, False, False, True]


def test_passers_by_do_not_count():
    assert [f.width for f in people_in([face(0, 100), face(200, 24)], 1.0)] == [100]
    assert len(people_in([face(0, 100), face(200, 30)], 1.0)) == 1  # below 32 pixels
    assert len(people_in([face(0, 100), face(200, 40)], 1.0)) == 2
    assert len(people_in([face(0, 1000), face(2000, 400)], 0.05)) == 1
    assert people_in([], 1.0) == []


def test_results_have_the_keys_and_texts_of_each_surface():
    result = PhotoResult("u", Code.STRANGER, False)
    message = "This photo is not the same person in photos."
    queue = {"url": "u", "message": message, "code": 6, "frontal": False}
    assert list(result.for_queue().items()) == list(queue.items())
    rest = {"code": 6, "frontal": False, "message": message, "url": "u"}
    assert list(result.for_rest().items()) == list(rest.items())
    assert MESSAGES[Code.NOT_DECODED] == "Image decode error."
    assert MESSAGES[Code.NOT_ONE_FACE] == "Number of face is not 1."
    assert MESSAGES[Code.NOT_DETECTED] == "Image detect error."
    assert MESSAGES[Code.NOT_ENCODED] == "Image encoding error."


def test_transparency_is_white():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_photo(file_of(image, "PNG")).min() == 255


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.full((8, 8), 0x8000, np.uint16)
    assert decode_photo(file_of(Image.fromarray(values), "PNG")).max() == 0x80


def test_a_photo_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the right side is up
    image = Image.new("RGB", (16, 8), "blue")
    assert decode_photo(file_of(image, "JPEG", exif=exif.tobytes())).shape == (16, 8, 3)


def test_an_animation_is_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_photo(data)[0, 0].tolist() == [255, 0, 0]


def test_a_large_jpeg_is_decoded_smaller_but_never_too_small():
    data = file_of(Image.new("RGB", (4000, 3000), "green"), "JPEG")
    assert decode_photo(data, enough_side=1024).shape == (1500, 2000, 3)
    assert decode_photo(data).shape == (3000, 4000, 3)


def test_more_than_64_megapixels_are_refused_before_they_are_decoded():
    data = file_of(Image.new("1", (8001, 8000)), "PNG")
    with pytest.raises(BadImage, match="8001x8000 is more than 64 million pixels"):
        decode_photo(data)
