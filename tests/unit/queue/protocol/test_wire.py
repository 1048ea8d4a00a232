from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.queue.protocol.wire import (
    Frame,
    encode_frame,
    encode_frames,
    format_duration,
    frame_json,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1.5s", 1.5),
        ("0s", 0),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("5", 5),
        ("0.25", 0.25),
        ("1h0m1s", 3601),
        (".5s", 0.5),
    ],
)
def test_a_go_duration_or_a_bare_number_is_seconds(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-5s", "5x", "5 s", "nan", "inf", "1e3", "5s5", "٥s"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.text(max_size=12))
def test_no_text_breaks_the_duration_parser(text: str):
    with suppress(ValueError):
        assert parse_duration(text) >= 0


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (997, "997ms"),
        (1000, "1s"),
        (2091, "2.091s"),
        (132_017, "2m12.017s"),
        (19 * 60_000 + 11_174, "19m11.174s"),
        (2 * 3_600_000 + 30 * 60_000 + 57_080, "2h30m57.08s"),
        (3_600_000, "1h0m0s"),
        (18 * 3_600_000 + 46 * 60_000 + 24_039, "18h46m24.039s"),
    ],
)
def test_durations_are_written_as_the_product_document_shows_them(milliseconds: int, text: str):
    assert format_duration(milliseconds) == text


def test_a_frame_has_the_bytes_of_protobuf():
    frame = Frame(300, {"k": "v"}, b"ab", "m")
    body = b"\x08\xac\x02" + b"\x12\x06\x0a\x01k\x12\x01v" + b"\x1a\x02ab" + b"\x22\x01m"
    assert encode_frame(frame) == body
    assert encode_frames([frame]) == b"\x0a" + bytes([len(body)]) + body
    assert encode_frames([]) == b""


def test_json_frames_name_a_message_only_when_there_is_one():
    assert frame_json(Frame(1, {"a": "b"}, b"xyz")) == {
        "index": 1,
        "tags": {"a": "b"},
        "data": "eHl6",
    }
    assert frame_json(Frame(1, {}, b"", "why"))["message"] == "why"
