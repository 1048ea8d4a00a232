"""What X/Y/Z plot reads as the values of an axis (webui-scripts 8.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.errors import BadRequest
from sdapi.extensions.scripts.selectable.xyz_plot.values import (
    MAX_VALUES,
    join_csv,
    numbers,
    split_csv,
    whole_numbers,
)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a,b", ["a", "b"]),
        ('Euler a, "one, two" ,', ["Euler a", "one, two", ""]),
        ("1\n2,3", ["1", "2", "3"]),
        ("", []),
    ],
)
def test_texts_are_split_at_commas_and_lines(text: str, items: list[str]):
    assert split_csv(text) == items


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n\0")), min_size=1))
def test_what_is_joined_is_split_again(items: list[str]):
    items = [item.strip() or "x" for item in items]
    assert split_csv(join_csv(items)) == items


@pytest.mark.parametrize(
    ("item", "values"),
    [
        ("7", [7]),
        (" 1 - 3 ", [1, 2, 3]),
        ("-2-1", [-2, -1, 0, 1]),
        ("1-9 (+3)", [1, 4, 7]),
        ("5-1 (-1)", [5, 4, 3]),
        ("0-10 [3]", [0, 5, 10]),
        ("1-4 [3]", [1, 2, 4]),
        ("", []),
        ("3-1", []),
    ],
)
def test_whole_numbers(item: str, values: list[int]):
    assert whole_numbers([item]) == values


@pytest.mark.parametrize(
    ("item", "values"),
    [
        ("0.5", [0.5]),
        ("1-2.5", [1, 2, 3]),
        ("0-1 (+0.5)", [0, 0.5, 1]),
        ("1-0 (-0.5)", [1, 0.5, 0]),
        ("0-1 [5]", [0, 0.25, 0.5, 0.75, 1]),
        ("-3--1", [-3, -2, -1]),
        ("", []),
    ],
)
def test_numbers(item: str, values: list[float]):
    assert numbers([item]) == pytest.approx(values)


@pytest.mark.parametrize("item", ["x", "1.5", "1-", "1-2 (2)", "1-2 (+0)", "1-2 [x]"])
def test_what_is_no_whole_number_is_an_error(item: str):
    with pytest.raises(ValueError):  # noqa: PT011 - the caller tells which axis it was
        whole_numbers([item])


@pytest.mark.parametrize("item", ["x", ".5-1", "1-2 (.5)", "0-1 (+0)", "0-1 (-0.0)"])
def test_what_is_no_number_is_an_error(item: str):
    with pytest.raises(ValueError):  # noqa: PT011 - the caller tells which axis it was
        numbers([item])


@pytest.mark.parametrize("item", ["1-999999999999", "0-1 (+0.0000001)", "0-1 [99999999]"])
def test_long_ranges_are_refused_before_they_are_made(item: str):
    with pytest.raises(BadRequest, match="1000"):
        numbers([item])


@given(st.text("0123456789-+.,()[] ", max_size=20))
def test_no_text_does_more_than_fail(text: str):
    for read in (whole_numbers, numbers):
        try:
            values = read(split_csv(text))
        except (ValueError, OverflowError, BadRequest):
            continue
        assert len(values) <= MAX_VALUES
