"""Pictures to bytes: the PNG writer, the formats of answers and files."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdapi.errors import BadRequest
from sdapi.images import decode_bytes, encode, encode_file, encode_png, read_infotext, to_base64
from sdapi.options import Options

INPUTS = Path(__file__).parents[2] / "golden" / "inputs"
OPTIONS = Options.defaults()
INFOTEXT = 'a cat, "quoted": 猫\nNegative prompt: dog\nSteps: 6, Seed: 1, Sampler: Euler'


def pixels_of(image: Image.Image) -> tuple[str, tuple[int, int], bytes]:
    return image.mode, image.size, image.tobytes()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    mode=st.sampled_from(["L", "LA", "RGB", "RGBA"]),
    seed=st.integers(0, 99),
)
def test_png_reads_back_pixel_by_pixel(width: int, height: int, mode: str, seed: int):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    image = Image.frombytes(mode, (width, height), pixels.tobytes())
    assert pixels_of(opened(encode_png(image))) == pixels_of(image)


@pytest.mark.parametrize("mode", ["1", "P", "I;16", "CMYK"])
def test_other_modes_are_written_as_pillow_writes_them(mode: str):
    image = Image.new(mode, (3, 2))
    if mode == "CMYK":
        with pytest.raises(OSError, match="CMYK"):
            encode_png(image)
    else:
        assert opened(encode_png(image)).size == (3, 2)


@pytest.mark.parametrize("text", ["plain", "Grüße", "猫\nline two", "", INFOTEXT])
def test_png_text_reads_back_and_is_latin_1_where_it_can_be(text: str):
    data = encode_png(Image.new("RGB", (2, 2)), {"parameters": text, "other": "x"})
    image = opened(data)
    assert (image.info["parameters"], image.info["other"]) == (text, "x")
    is_latin = all(ord(sign) < 256 for sign in text)
    assert data[37:41] == (b"tEXt" if is_latin else b"iTXt")


def test_png_is_not_much_larger_than_pillow_s_best():
    image = decode_bytes((INPUTS / "big256x192.png").read_bytes()).convert("RGB")
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    assert len(encode_png(image)) < 2 * len(out.getvalue())


@pytest.mark.parametrize(
    ("fmt", "kind"),
    [("png", "PNG"), ("PNG", "PNG"), ("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")],
)
def test_answer_formats_carry_the_infotext(fmt: str, kind: str):
    image = opened(
        encode(decode_bytes((INPUTS / "alpha128.png").read_bytes()), fmt, INFOTEXT, OPTIONS)
    )
    assert image.format == kind
    assert image.mode == ("RGBA" if kind == "PNG" else "RGB")
    assert read_infotext(image)[0] == INFOTEXT


@pytest.mark.parametrize("fmt", ["avif", "bmpx", ""])
def test_other_answer_formats_are_refused(fmt: str):
    with pytest.raises(BadRequest, match=r"^Invalid image format$"):
        encode(Image.new("RGB", (8, 8)), fmt, None, OPTIONS)


def test_files_may_be_avif_and_webp_without_loss():
    image = decode_bytes((INPUTS / "a128.png").read_bytes()).convert("RGB")
    assert read_infotext(opened(encode_file(image, "avif", INFOTEXT, OPTIONS)))[0] == INFOTEXT
    lossless = OPTIONS.overlay({"webp_lossless": True})
    written = opened(encode_file(image, "webp", None, lossless))
    assert pixels_of(written) == pixels_of(image)
    assert pixels_of(opened(encode(image, "webp", None, lossless))) != pixels_of(image)


@pytest.mark.parametrize("fmt", ["png", "jpg", "webp"])
def test_option_leaves_the_infotext_out(fmt: str):
    options = OPTIONS.overlay({"enable_pnginfo": False})
    assert read_infotext(opened(encode(Image.new("RGB", (8, 8)), fmt, INFOTEXT, options))) == (
        "",
        {},
    )


def test_quality_option_acts():
    image = decode_bytes((INPUTS / "a128.png").read_bytes()).convert("RGB")
    small = encode(image, "jpg", None, OPTIONS.overlay({"jpeg_quality": 30}))
    assert len(small) < len(encode(image, "jpg", None, OPTIONS))


def test_png_keeps_the_text_the_picture_had():
    image = decode_bytes((INPUTS / "txt_plain.png").read_bytes())
    kept = opened(encode(image, "png", "new", OPTIONS)).info
    assert kept == {**image.info, "parameters": "new"}


def test_base64_has_no_prefix():
    assert to_base64(b"\0\1") == "AAE="
