"""Recorded requests, answered again: a third by default, all with `-m slow` or `scripts/golden`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden_replay import Case, Replay, decisions, find_cases, replaying

CASES = sorted((c for c in find_cases() if c.issue == "serve"), key=lambda c: c.name)
#: every third by name, and all of those that need no drawing
DEFAULT = {c.name for c in CASES[::3]} | {c.name for c in CASES if c.section == "pnginfo"}
DECIDED = decisions()


@pytest.fixture(scope="module")
def replay(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    with replaying(golden, data_dir=tmp_path_factory.mktemp("golden") / "data") as running:
        yield running


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=c.name, marks=() if c.name in DEFAULT else pytest.mark.slow)
        for c in CASES
        if c.name not in DECIDED
    ],
)
def test_recorded_case_is_answered_the_same(replay: Replay, case: Case):
    assert replay.differences(case) == []


def test_every_decision_names_a_recorded_case_and_that_case_does_differ(replay: Replay):
    cases = {case.name: case for case in CASES}
    assert DECIDED.keys() <= cases.keys()
    for name in DECIDED:
        assert replay.differences(cases[name]) != []


def test_decided_cases_keep_the_recorded_text(replay: Replay):
    response = replay.client.post("/sdapi/v1/png-info", json={"image": ""})
    assert response.status_code == 422
    assert response.json()["detail"] == "Invalid encoded image"
