"""Replays recorded requests through the application and tells what differs from the record.

`scripts/golden` runs this as a program; tests call `Replay`.
"""

import argparse
import base64
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.flags import parse
from sdapi.settings import Settings, settings_from
from tests.replay.cases import Case, decisions, find_cases, needs
from tests.replay.comparing import Pictures, compare_bodies, compare_files, compare_infos, tolerance
from tests.servers import GOLDEN, golden_data_dir, in_process

#: sections that need another server than the rest
USERS = (("user", "pass"), ("ann", "secret"))
SHARE = 0.98


@dataclass
class Replay:
    """A running application, and the recorded data it is asked with."""

    client: TestClient
    golden: Path
    outputs: Path
    #: files of `outputs` that are accounted for
    seen: set[Path] = field(default_factory=set[Path])
    #: the cases whose requests were sent
    sent: set[str] = field(default_factory=set[str])

    def differences(self, case: Case) -> list[str]:
        """Send a case's request; what differs from its answer, empty when it holds.

        What it needs is sent before where it was not yet, so that a case can be replayed alone.
        """
        needed = (needs() | needs(self.golden)).get(case.name, [])
        for before in (case.beside(name) for name in needed if name not in self.sent):
            self._send(before)
        recorded, response = case.answer, self._send(case)
        found: list[str] = []
        if response.status_code != recorded["status"]:
            found.append(f"status {response.status_code}, recorded {recorded['status']}")
        text = response.text.replace(str(self.outputs.parent), "/data")
        try:
            body = json.loads(text)
        except ValueError:
            body = {"@text": text}
        # An echo of what was sent is recorded as the name of its file; so is a picture that comes
        # out as it went in, though its bytes need not be the same.
        expected = self._with_files(recorded["body"])
        if isinstance(expected, dict) and isinstance(recorded["body"].get("images"), list):
            expected["images"] = recorded["body"]["images"]
        found += compare_bodies(body, expected, Pictures(case))
        if recorded.get("info_parsed") and isinstance(body, dict) and "info" in body:
            found += compare_infos(json.loads(body["info"]), recorded["info_parsed"])
        found += self._compare_files(case, recorded.get("new_files") or [])
        return found

    def _send(self, case: Case) -> httpx.Response:
        request = case.request
        self.sent.add(case.name)
        return self.client.request(
            request["method"],
            request["path"],
            params=request.get("params"),
            headers=dict(request.get("headers") or {}) | self._content_type(request),
            content=self._content(request),
        )

    @staticmethod
    def _content_type(request: Mapping[str, Any]) -> dict[str, str]:
        has_body = request.get("body") is not None or request.get("raw_body") is not None
        return {"content-type": "application/json"} if has_body else {}

    def _content(self, request: Mapping[str, Any]) -> bytes | None:
        if request.get("raw_body") is not None:
            return request["raw_body"].encode()
        if request.get("body") is None:
            return None
        return json.dumps(self._with_files(request["body"])).encode()

    def _with_files(self, value: Any) -> Any:
        if isinstance(value, str) and value.startswith("@file:"):
            name = value.removeprefix("@file:")
            prefix = "data:image/png;base64," if name.startswith("datauri:") else ""
            data = (self.golden / name.removeprefix("datauri:")).read_bytes()
            return prefix + base64.b64encode(data).decode()
        if isinstance(value, dict):
            return {key: self._with_files(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._with_files(item) for item in value]
        return value

    def _compare_files(self, case: Case, recorded: list[str]) -> list[str]:
        now = {path for path in self.outputs.rglob("*") if path.is_file()}
        new, self.seen = sorted(now - self.seen), now
        ours = sorted(file_pattern(p.relative_to(self.outputs).as_posix()) for p in new)
        theirs = sorted(file_pattern(name) for name in recorded)
        if ours != theirs:
            return [f"new files {ours}, recorded {theirs}"]
        found: list[str] = []
        saved = sorted((case.folder / "saved").glob("*"))
        for ours_path, theirs_path in zip(new, saved, strict=False):
            found += [
                f"{theirs_path.name}: {difference}"
                for difference in compare_files(ours_path, theirs_path, tolerance(case.name))
            ]
        return found


def file_pattern(name: str) -> str:
    """A file name without what depends on the day and on the files before it."""
    name = re.sub(r"20\d\d[01]\d[0-3]\d{7}", "TIME", name)
    name = re.sub(r"20\d\d-\d\d-\d\d", "DATE", name)
    return re.sub(r"(?<=/)(\w*grid-)?\d{4,5}(?=[-.])", r"\1NUMBER", name)


@contextmanager
def replaying(golden: Path, section: str = "", *, data_dir: Path) -> Iterator[Replay]:
    """A fresh application for the cases of a section."""
    golden_data_dir(data_dir, golden)
    with in_process(
        build_app(recorded_settings(data_dir, section)), raise_server_exceptions=False
    ) as client:
        yield Replay(client, golden, data_dir / "outputs")


@dataclass
class Score:
    """How the cases of a section fared."""

    held: int = 0
    missed: int = 0
    decided: int = 0


@dataclass
class Table:
    """What became of every case, by section."""

    scores: dict[str, Score] = field(default_factory=dict[str, Score])
    misses: list[str] = field(default_factory=list[str])

    def add(self, case: Case, found: list[str], reason: str | None, *, verbose: bool) -> None:
        """Count a case; one that holds counts as held although a decision names it."""
        score = self.scores.setdefault(case.section, Score())
        if not found:
            score.held += 1
        elif reason is not None:
            score.decided += 1
            print(f"decided {case.name}: {reason}", flush=True)
        else:
            score.missed += 1
            shown = "; ".join(found if verbose else [found[0][:200]])
            self.misses.append(f"{case.section:12} {case.name}: {shown}")
            print(f"differs {case.name}: {shown}", flush=True)

    def print(self) -> bool:
        """Print the misses and the table; whether enough of the undecided cases hold."""
        if self.misses:
            print("\nmisses", *sorted(self.misses), sep="\n")
        print(f"\n{'section':14} held missed decided")
        for section, score in self.scores.items():
            print(f"{section:14} {score.held:4} {score.missed:6} {score.decided:7}")
        held = sum(score.held for score in self.scores.values())
        judged = held + len(self.misses)
        print(f"{held} of {judged} hold ({held / max(judged, 1):.1%})")
        return judged > 0 and held / judged >= SHARE


def recorded_settings(data_dir: Path, section: str) -> Settings:
    """The command line of the recording, as far as its answers show it."""
    line = [
        *(
            "--api",
            "--no-half",
            "--no-half-vae",
            "--skip-torch-cuda-test",
            "--no-download-sd-model",
        ),
        *("--skip-prepare-environment", "--server-name=127.0.0.1", "--port=17860", "--use-cpu=all"),
        f"--data-dir={data_dir}",
        f"--ckpt={data_dir}/models/Stable-diffusion/tinyA.safetensors",
    ]
    if section != "webui_mode":
        line.append("--nowebui")
    if section == "auth":
        line.append("--api-auth=" + ",".join(f"{user}:{password}" for user, password in USERS))
    return settings_from(parse(line, {}), data_dir)


def main(arguments: list[str]) -> int:
    """Replay cases and print a table by section; 0 when enough of them hold."""
    parser = argparse.ArgumentParser(prog="scripts/golden", description=__doc__)
    parser.add_argument("--golden", type=Path, default=GOLDEN, help="another collection of cases")
    parser.add_argument("--only", nargs="+", help="name prefixes, sections or milestones (a,b c)")
    parser.add_argument("--case", nargs="+", help="names of single cases")
    parser.add_argument("-v", "--verbose", action="store_true", help="show every difference")
    chosen = parser.parse_args(arguments)
    only = [part for text in chosen.only or [] for part in text.split(",") if part]
    cases = [c for c in find_cases(chosen.golden) if _is_wanted(c, only, chosen.case or [])]
    decided, table = decisions() | decisions(chosen.golden), Table()
    for server in dict.fromkeys(_server(case) for case in cases):
        with (
            tempfile.TemporaryDirectory() as folder,
            replaying(chosen.golden, server, data_dir=Path(folder, "data")) as replay,
        ):
            for case in (c for c in cases if _server(c) == server):
                found = _differences(replay, case)
                table.add(case, found, decided.get(case.name), verbose=chosen.verbose)
    return 0 if table.print() else 1


def _differences(replay: Replay, case: Case) -> list[str]:
    try:
        return replay.differences(case)
    except Exception as error:  # one broken case is a miss; the others still count
        return [f"{type(error).__name__}: {error}"]


def _server(case: Case) -> str:
    return case.section if case.section in ("auth", "webui_mode") else ""


def _is_wanted(case: Case, only: list[str], names: list[str]) -> bool:
    if not only and not names:
        return True
    return case.name in names or any(
        case.name.startswith(o) or o in (case.section, case.issue) for o in only
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
