import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.object_url import MAX_KEY_BYTES, ObjectUrl, is_object_url

PREFIX = ObjectUrl.parse("oss://bucket/a/b")


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("oss://bucket", "bucket", ""),
        ("oss://bucket/", "bucket", ""),
        ("oss://my-bucket1/a/b.png", "my-bucket1", "a/b.png"),
        ("oss://bucket/a/", "bucket", "a"),
        ("s3://my.bucket/ü 1+?#%2e.png", "my.bucket", "ü 1+?#%2e.png"),
    ],
)
def test_urls_are_read_without_decoding_anything(text: str, bucket: str, key: str):
    found = ObjectUrl.parse(text)
    assert (found.bucket, found.key) == (bucket, key)
    assert str(found) == text.rstrip("/")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bucket/key", "form"),
        ("http://bucket/key", "scheme"),
        ("OSS://bucket/key", "form"),
        ("oss:///key", "bucket"),
        ("oss://Bucket/key", "bucket"),
        ("oss://a..b/key", "bucket"),
        ("oss://user:secret@bucket/key", "bucket"),
        ("oss://bucket:80/key", "bucket"),
        ("oss://bucket//key", "empty part"),
        ("oss://bucket/a//b", "empty part"),
        ("oss://bucket/a/../b", "'..'"),
        ("oss://bucket/./b", "'..'"),
        ("oss://bucket/..", "'..'"),
        ("oss://bucket/a\nb", "control character"),
        ("oss://bucket/a\x7fb", "control character"),
        ("oss://bucket/a\x85b", "control character"),
        ("oss://bucket/\\a", "backslash"),
        ("oss://bucket/a\ud800b", "Unicode"),
        ("oss://bucket/" + "ü" * (MAX_KEY_BYTES // 2 + 1), "bytes"),
    ],
)
def test_what_is_no_object_is_refused_with_the_reason(text: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        ObjectUrl.parse(text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_is_taken_lies_below_its_prefix_however_it_is_spelled(middle: str, rest: str):
    try:
        found = ObjectUrl.parse(f"oss://bucket/a/b{middle}/{rest}")
    except ValueError:
        return
    assert ".." not in found.key.split("/")
    assert found.is_below(PREFIX) == f"{found.key}/".startswith("a/b/")
    if found.is_below(PREFIX):
        assert PREFIX.below(found.relative_to(PREFIX)) == found


@pytest.mark.parametrize(
    ("text", "is_below"),
    [
        ("oss://bucket/a/b", True),
        ("oss://bucket/a/b/c", True),
        ("oss://bucket/a/bc", False),
        ("oss://bucket/a", False),
        ("oss://other/a/b/c", False),
        ("s3://bucket/a/b/c", False),
    ],
)
def test_names_count_whole_below_a_prefix(text: str, is_below: bool):
    assert ObjectUrl.parse(text).is_below(PREFIX) is is_below
    assert ObjectUrl.parse(text).is_below(ObjectUrl.parse(text.rpartition("/")[0]))


def test_siblings_and_names():
    url = ObjectUrl.parse("oss://bucket/a/model.safetensors")
    assert (url.name, str(url.sibling("model.yaml"))) == (
        "model.safetensors",
        "oss://bucket/a/model.yaml",
    )
    assert str(ObjectUrl.parse("oss://bucket/x").sibling("y")) == "oss://bucket/y"


@pytest.mark.parametrize("text", ["http://a/b", "a", "", "oss:", "iVBORw0KGgo="])
def test_pages_and_pictures_are_no_objects(text: str):
    assert not is_object_url(text)
