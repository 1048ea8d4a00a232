import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.portrait.wire.literal import MAX_DEPTH, LiteralError, parse_body, parse_literal

JAVA_SAMPLE = b"""{
 'request_id': 12345,
 'images' : ["xx.jpg", "xx.jpg"],
 'configure' : {
 'face_reconize' : True,
 }
}"""

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_the_java_sample_is_read():
    assert parse_body(JAVA_SAMPLE, is_tolerant=True) == {
        "request_id": 12345,
        "images": ["xx.jpg", "xx.jpg"],
        "configure": {"face_reconize": True},
    }


def test_only_json_is_read_where_nothing_else_is_allowed():
    with pytest.raises(LiteralError):
        parse_body(JAVA_SAMPLE, is_tolerant=False)
    assert parse_body(b'\xef\xbb\xbf{"a": 1}', is_tolerant=False) == {"a": 1}


@given(VALUES)
def test_what_python_writes_is_read(value: object):
    assert parse_literal(repr(value)) == value


@given(VALUES)
def test_what_json_writes_is_read(value: object):
    assert parse_literal(json.dumps(value)) == value


@given(st.text())
def test_any_text_is_read_or_refused(text: str):
    with suppress(LiteralError):
        parse_literal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "f(1)",
        "1 + 1",
        "[1 2]",
        "[,]",
        "{1: 2}",
        "{'a' 1}",
        "'open",
        "'a\nb'",
        "[1] 2",
        "__import__('os')",
        "'\\U00110000'",
        "1e999",
        "[" * 40 + "]" * 40,
    ],
)
def test_what_is_no_literal_is_refused(text: str):
    with pytest.raises(LiteralError):
        parse_literal(text)


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"[1]", b"3", b'{"a": NaN}', b"[" * 100_000, b'{"a": 1e999}']
)
def test_bodies_that_are_no_object_are_refused(body: bytes):
    with pytest.raises(LiteralError):
        parse_body(body, is_tolerant=True)


def test_words_of_both_languages_and_commas_at_ends_are_read():
    assert parse_literal("{'a': [True, false, None, null,], \"b\": -.5,}") == {
        "a": [True, False, None, None],
        "b": -0.5,
    }


def nested(depth: int) -> bytes:
    """JSON whose innermost list is so deep below the body's object."""
    return b'{"x": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize("is_tolerant", [True, False])
def test_json_is_nested_no_deeper_than_a_literal(is_tolerant: bool):
    assert parse_body(nested(MAX_DEPTH), is_tolerant=is_tolerant)
    for depth in (MAX_DEPTH + 1, 983, 100_000):
        with pytest.raises(LiteralError):
            parse_body(nested(depth), is_tolerant=is_tolerant)
