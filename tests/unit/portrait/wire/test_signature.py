"""The contract's vectors, as the Go and Python clients send them."""

import pytest

from sdapi.portrait.wire.signature import is_signed, sign, signed_targets

TOKEN = "0123456789abcdef0123456789abcdef"
CHECK = "/api/v1/aigc_images/check"
VECTORS = [
    (
        "POST",
        CHECK,
        b'{"action":"AIGCImageCheck","images":["https://example.com/0.jpg"]}\n',
        "6ac2ff85dd37633fe7d17645c20f81f9acba2d74983d4631eab6b21031e3c138",
    ),
    (
        "POST",
        CHECK,
        b'{"action": "AIGCImageCheck", "images": ["https://example.com/0.jpg"], "model_name": ""}',
        "aaaec63e31eebbaaac768a373468809106e9e97505acd75f0d20dfed77db3eef",
    ),
    (
        "POST",
        "/api/v1/async_jobs/11002",
        b"",
        "dad6e4370898f3b8601a816b5dc90caf7f06918a8f8d44ca429698ea874854e4",
    ),
    (
        "POST",
        "/api/v1/async_jobs/11002",
        b"{}",
        "8099671140ef806c4e31ff7142b7c8e4e5f173e75921476b60971221e67bcfea",
    ),
    (
        "GET",
        "/api/v1/batch_jobs/3",
        b"",
        "90f8733c7047fafbd40305cce4e4b09e534922386ef06a98f42ea1999ea88d4b",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "expected"), VECTORS)
def test_the_vectors_of_real_clients_hold(method: str, path: str, body: bytes, expected: str):
    assert sign(TOKEN, method, path, body) == expected
    assert is_signed(expected, TOKEN, method, path, "", body)
    assert not is_signed(expected, TOKEN, method, path, "", body + b" ")
    assert not is_signed(expected, TOKEN, method, path + "/", "", body)
    assert not is_signed(expected, TOKEN[::-1], method, path, "", body)
    assert not is_signed(expected.upper(), TOKEN, method, path, "", body)


def test_a_query_is_signed_by_name_without_its_sign_and_with_its_first_values():
    assert signed_targets("/p", "b=2&a=1%20x&sign=0&a=3") == [
        "/p",
        "/p?a=1%20x&b=2",
        "/p?a=1 x&b=2",
    ]
    assert signed_targets("/p", "sign=0") == ["/p"]


def test_a_signature_that_is_no_ascii_is_wrong():
    assert not is_signed("é\udcff", TOKEN, "GET", "/p", "", b"")
