"""Recorded requests, answered again."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.replay.cases import Case, decisions, find_cases, needs, recorded_names
from tests.replay.golden_replay import Replay, replaying

RECORDED = find_cases()
#: section by section, each in recorded order
CASES = [
    case
    for section in dict.fromkeys(case.section for case in RECORDED)
    for case in RECORDED
    if case.section == section
]
DECIDED = decisions()


@pytest.fixture(scope="module")
def replay_of(
    golden: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Replay]]:
    """The server of a section, whose cases may build on one another; one runs at a time."""
    with ExitStack() as running:
        current: dict[str, Replay] = {}

        def replay(section: str) -> Replay:
            if section not in current:
                running.close()
                current.clear()
                folder = tmp_path_factory.mktemp("golden") / "data"
                current[section] = running.enter_context(
                    replaying(golden, section, data_dir=folder)
                )
            return current[section]

        yield replay


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_recorded_case_is_answered_the_same(replay_of: Callable[[str], Replay], case: Case):
    differences = replay_of(case.section).differences(case)
    if case.name in DECIDED:
        assert differences, "it holds: no decision is needed"
    else:
        assert differences == []


def alone(name: str, needed: list[str]) -> Any:
    """A case as a parameter; those that draw take a while."""
    draws = any(each.startswith("t2i_") for each in (name, *needed))
    return pytest.param(name, marks=pytest.mark.slow if draws else ())


@pytest.mark.parametrize("name", [alone(*each) for each in needs().items()])
def test_case_that_builds_on_others_holds_alone(golden: Path, tmp_path: Path, name: str):
    (case,) = (case for case in RECORDED if case.name == name)
    with replaying(golden, data_dir=tmp_path / "data") as replay:
        assert replay.differences(case) == []


def test_every_decision_names_a_recorded_case():
    assert DECIDED.keys() <= recorded_names()
