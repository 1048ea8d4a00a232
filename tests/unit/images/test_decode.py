"""Pictures from clients: base64, limits, broken bytes."""

import base64
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sdapi.errors import BadImage
from sdapi.images import decode_bytes, decode_image, encode_png

INPUTS = Path(__file__).parents[2] / "golden" / "inputs"


def base64_of(name: str) -> str:
    return base64.b64encode((INPUTS / name).read_bytes()).decode()


@pytest.mark.parametrize("name", ["a128.png", "a128.jpg", "gray128.png", "alpha128.png"])
def test_base64_text_and_data_uri_decode_alike(name: str):
    plain = decode_image(base64_of(name))
    assert plain == decode_image(f"data:image/png;base64,{base64_of(name)}")
    assert plain.size == (128, 128)


def test_characters_outside_the_alphabet_are_skipped():
    text = base64_of("a128.png")
    assert decode_image(f" {text[:99]}\r\n!{text[99:]}\n") == decode_image(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zzz",
        "not base64!!",
        "aGVsbG8gd29ybGQsIG5vdCBhbiBpbWFnZQ==",
        "data:image/png,abc",
        "data:image/png;base64,",
        "http://127.0.0.1/x.png",
        "кот",
        base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode(),
    ],
)
def test_text_that_is_no_picture_is_refused(text: str):
    with pytest.raises(BadImage, match=r"^Invalid encoded image$"):
        decode_image(text)


@pytest.mark.parametrize("name", ["a128.png", "a128.jpg"])
def test_cut_off_picture_is_refused(name: str):
    data = (INPUTS / name).read_bytes()
    with pytest.raises(BadImage, match=r"^Invalid encoded image$"):
        decode_bytes(data[: len(data) // 2])


def test_palette_with_alpha_becomes_rgba():
    image = Image.new("P", (4, 4))
    out = io.BytesIO()
    image.save(out, "PNG", transparency=b"\x80\xff")
    decoded = decode_bytes(out.getvalue())
    assert decoded.mode == "RGBA"
    assert decoded.getpixel((0, 0)) == (0, 0, 0, 128)


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    assert decode_bytes(out.getvalue()).size == (2, 4)


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    whole = encode_png(Image.new("RGB", (1, 1)))
    chunk = b"IHDR" + header
    return whole[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]


@pytest.mark.parametrize("size", [(20_000, 11_000), (60_000, 60_000)])
def test_picture_with_too_many_pixels_is_refused_before_it_is_decoded(size: tuple[int, int]):
    with pytest.raises(BadImage, match=r"^Invalid encoded image: .+ pixels"):
        decode_bytes(bomb(*size))


def test_limit_can_be_set():
    data = (INPUTS / "a128.png").read_bytes()
    with pytest.raises(BadImage, match=r"128x128 is more than 0 million pixels"):
        decode_bytes(data, pixel_limit=100)
