"""Recorded requests and answers, as they lie in `tests/golden`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.servers import GOLDEN


@dataclass(frozen=True, slots=True)
class Case:
    """A recorded request and its answer."""

    name: str
    section: str
    issue: str
    folder: Path

    @property
    def request(self) -> dict[str, Any]:
        return json.loads((self.folder / "request.json").read_text(encoding="utf-8"))

    def beside(self, name: str) -> "Case":
        """Another case of its section."""
        return replace(self, name=name, folder=self.folder.with_name(name))

    @property
    def answer(self) -> dict[str, Any]:
        return json.loads((self.folder / "response.json").read_text(encoding="utf-8"))


def find_cases(golden: Path = GOLDEN) -> list[Case]:
    """The cases that are there, in recorded order."""
    index = json.loads((golden / "index.json").read_text(encoding="utf-8"))
    cases = [
        Case(name, entry["section"], entry.get("issue", ""), golden / "cases" / name)
        for name, entry in index.items()
        if entry.get("path") and entry["section"] != "async"
    ]
    return [case for case in cases if (case.folder / "request.json").is_file()]


def recorded_names(golden: Path = GOLDEN) -> set[str]:
    """The names of all recorded cases, whether they are in this collection or not."""
    return set(json.loads((golden / "index.json").read_text(encoding="utf-8")))


def needs(golden: Path = GOLDEN) -> dict[str, list[str]]:
    """Case -> the cases before it whose effects its answer shows, in order."""
    path = golden / "needs.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def decisions(golden: Path = GOLDEN) -> dict[str, str]:
    """Case -> why ours differs on purpose."""
    path = golden / "decisions.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
