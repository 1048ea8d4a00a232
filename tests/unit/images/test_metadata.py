"""Reading the text pictures carry."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from sdapi.images import decode_bytes, exif_with_text, read_infotext

INPUTS = Path(__file__).parents[2] / "golden" / "inputs"
TEXT = "a cat\nSteps: 6, Seed: 1, Sampler: Euler"


def saved(fmt: str, **settings: object) -> Image.Image:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, fmt, **settings)
    return decode_bytes(out.getvalue())


def test_exif_is_laid_out_as_the_recorded_files_have_it():
    assert exif_with_text("ab") == (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87i\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0"
        b"\0\x01\x92\x86\0\x07\0\0\0\x0c\0\0\0(UNICODE\0\0a\0b"
    )


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP", "AVIF"])
def test_exif_comment_is_read(fmt: str):
    assert read_infotext(saved(fmt, exif=exif_with_text(TEXT))) == (TEXT, {})


def test_exif_wins_over_png_text():
    image = saved("PNG", exif=exif_with_text(TEXT))
    image.info["parameters"] = "other"
    assert read_infotext(image) == (TEXT, {})


def test_gif_comment_is_read():
    text, items = read_infotext(saved("GIF", comment=TEXT.encode()))
    assert text == TEXT
    assert items == {"version": "GIF89a", "comment": TEXT}


def test_picture_without_text_has_none():
    assert read_infotext(saved("PNG")) == ("", {})
    assert read_infotext(saved("JPEG", dpi=(72, 72))) == ("", {})


def test_broken_exif_is_as_good_as_none():
    image = saved("PNG")
    image.info["exif"] = b"Exif\0\0nonsense"
    assert read_infotext(image) == ("", {})


def test_novelai_text_is_put_together():
    text, items = read_infotext(decode_bytes((INPUTS / "txt_nai.png").read_bytes()))
    assert text == (
        "{cat}, [dog]\nNegative prompt: bad\n"
        "Steps: 28, Sampler: Euler a, CFG scale: 11.0, Seed: 5, Size: 8x8, Clip skip: 2, "
        "ENSD: 31337"
    )
    assert items["Software"] == "NovelAI"
    assert json.loads(str(items["Comment"]))["uc"] == "bad"


def test_novelai_text_in_another_form_is_left_alone():
    image = saved("PNG")
    image.info |= {"Software": "NovelAI", "Comment": "{}"}
    assert read_infotext(image)[0] == ""


def test_other_entries_are_returned_as_json_can_hold_them():
    text, items = read_infotext(decode_bytes((INPUTS / "txt_plain.png").read_bytes()))
    assert items == {"extra": "x"}
    assert text == "just a prompt"
    image = saved("PNG")
    image.info |= {"gamma": 0.45, "raw": b"a\xff", "pair": (1, 2)}
    assert json.loads(json.dumps(read_infotext(image)[1])) == {
        "gamma": 0.45,
        "raw": "a",
        "pair": [1, 2],
    }
