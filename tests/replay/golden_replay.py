"""Replays recorded requests through the application and tells what differs from the record.

`scripts/golden` runs this as a program; tests call `Replay`.
"""

import argparse
import base64
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.flags import parse
from sdapi.images import read_infotext
from sdapi.settings import Settings, settings_from
from tests.replay.golden_volatile import is_volatile
from tests.servers import GOLDEN, golden_data_dir, in_process

TOLERANCE = 2
#: parts of names of cases and their pictures that the reference itself does not repeat more closely
WIDE = {
    "t2i_hr_": 6,
    "dpm_adaptive": 6,
    "colorcorr": 10,
    "color_correction": 10,
    "i2i_color": 10,
    "loopback": 32,
    # the labels of another FreeType
    "script_prompt_matrix/img_0": 10,
    "script_xyz_legend/img_0": 10,
}
#: their encoders change from version to version; the cases answer the same pictures as PNG, too
LOSSY, LOSSY_MEAN = ("JPEG", "WEBP", "AVIF"), 3.0
#: how small pictures stand in recorded answers
PNG_IN_BASE64 = "iVBORw0KGgo"
VOLATILE = {"job_timestamp", "subseed", "all_subseeds", "version"}
#: sections that need another server than the rest
USERS = (("user", "pass"), ("ann", "secret"))
SHARE = 0.98


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


def decisions(golden: Path = GOLDEN) -> dict[str, str]:
    """Case -> why ours differs on purpose."""
    path = golden / "decisions.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@dataclass
class Replay:
    """A running application, and the recorded data it is asked with."""

    client: TestClient
    golden: Path
    outputs: Path
    #: files of `outputs` that are accounted for
    seen: set[Path] = field(default_factory=set[Path])

    def differences(self, case: Case) -> list[str]:
        """Send a case's request; what differs from its answer, empty when it holds."""
        request, recorded = case.request, case.answer
        response = self.client.request(
            request["method"],
            request["path"],
            params=request.get("params"),
            headers=dict(request.get("headers") or {}) | self._content_type(request),
            content=self._content(request),
        )
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
        found += compare_bodies(body, expected, _Pictures(case))
        if recorded.get("info_parsed") and isinstance(body, dict) and "info" in body:
            found += compare_infos(json.loads(body["info"]), recorded["info_parsed"])
        found += self._compare_files(case, recorded.get("new_files") or [])
        return found

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


def tolerance(name: str) -> int:
    """How far a pixel may be off, of 255."""
    return max([TOLERANCE, *(wide for part, wide in WIDE.items() if part in name)])


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Compares a picture of an answer with the one recorded under a name."""

    case: Case

    def input_differences(self, encoded: object, name: str) -> list[str]:
        """How a picture differs from an input file."""
        return self._compare(encoded, self.case.folder.parents[1], name)

    def differences(self, encoded: object, name: str) -> list[str]:
        return self._compare(encoded, self.case.folder, name)

    def inline_differences(self, encoded: object, recorded: str, where: str) -> list[str]:
        """How a picture differs from one that is recorded in the answer itself."""
        return self._compare_bytes(encoded, base64.b64decode(recorded), where)

    def _compare(self, encoded: object, folder: Path, name: str) -> list[str]:
        return self._compare_bytes(encoded, (folder / name).read_bytes(), name)

    def _compare_bytes(self, encoded: object, recorded: bytes, name: str) -> list[str]:
        if not isinstance(encoded, str):
            return [f"{name}: no picture but {encoded!r:.60}"]
        try:
            data = base64.b64decode(encoded.split(",", 1)[-1], validate=True)
        except ValueError:
            return [f"{name}: no base64"]
        found = compare_pictures(data, recorded, tolerance(f"{self.case.name}/{name}"))
        return [f"{name}: {difference}" for difference in found]


def compare_bodies(ours: Any, theirs: Any, pictures: _Pictures, where: str = "body") -> list[str]:
    """Every place where two JSON values differ; what ours has besides is allowed in objects."""
    if is_volatile(pictures.case.name, where):
        return []
    if isinstance(theirs, dict):
        if not isinstance(ours, dict):
            return [f"{where}: {ours!r:.80}, recorded an object"]
        found = [f"{where}.{key}: missing" for key in theirs if key not in ours]
        for key, value in theirs.items():
            if key in ours and not (where == "body" and key == "info" and "images" in theirs):
                found += compare_bodies(ours[key], value, pictures, f"{where}.{key}")
        return found
    if isinstance(theirs, list):
        if not isinstance(ours, list) or len(ours) != len(theirs):
            count = len(ours) if isinstance(ours, list) else "no list"
            return [f"{where}: {count} entries, recorded {len(theirs)}"]
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [d for i, (a, b) in pairs for d in compare_bodies(a, b, pictures, f"{where}[{i}]")]
    if isinstance(theirs, str) and theirs.startswith("@img:"):
        return pictures.differences(ours, theirs.removeprefix("@img:"))
    if isinstance(theirs, str) and theirs.startswith(PNG_IN_BASE64) and isinstance(ours, str):
        return pictures.inline_differences(ours, theirs, where)
    if isinstance(theirs, str) and theirs.startswith("@file:"):
        return pictures.input_differences(ours, theirs.removeprefix("@file:"))
    if isinstance(theirs, str) and isinstance(ours, str):
        ours, theirs = stable_text(ours), stable_text(theirs)
    same = ours == theirs and isinstance(ours, bool) == isinstance(theirs, bool)
    return [] if same else [f"{where}: {ours!r:.300}, recorded {theirs!r:.300}"]


def compare_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Differences of two `info` objects."""
    found = [f"info.{key}" for key in sorted(ours.keys() ^ theirs.keys())]
    for key in sorted((ours.keys() & theirs.keys()) - VOLATILE):
        one, other = ours[key], theirs[key]
        if key == "infotexts":
            one, other = [stable_text(t) for t in one], [stable_text(t) for t in other]
        if one != other:
            found.append(f"info.{key}: {one!r:.300}, recorded {other!r:.300}")
    return found


def compare_files(ours: Path, theirs: Path, limit: int) -> list[str]:
    """Differences of two written files, text or pictures."""
    if theirs.suffix == ".txt":
        texts = [stable_text(path.read_text(encoding="utf-8")).strip() for path in (ours, theirs)]
        return [] if texts[0] == texts[1] else [f"{texts[0]!r:.300}, recorded {texts[1]!r:.300}"]
    return compare_pictures(ours.read_bytes(), theirs.read_bytes(), limit)


def compare_pictures(ours: bytes, theirs: bytes, limit: int) -> list[str]:
    """Differences in format, size, pixels and text of two encoded pictures."""
    with Image.open(io.BytesIO(ours)) as one, Image.open(io.BytesIO(theirs)) as other:
        if (one.format, one.size) != (other.format, other.size):
            return [f"{one.format} {one.size}, recorded {other.format} {other.size}"]
        texts = [stable_text(read_infotext(image)[0] or "") for image in (one, other)]
        pixels = [np.asarray(image.convert("RGBA")).astype(int) for image in (one, other)]
    found = [] if texts[0] == texts[1] else [f"text {texts[0]!r}, recorded {texts[1]!r}"]
    error = np.abs(pixels[0] - pixels[1])
    if other.format in LOSSY:
        return [*found, f"mean error {error.mean():.2f}"] if error.mean() > LOSSY_MEAN else found
    if error.max() > limit and not (error.max() <= 2 * limit and error.mean() < 0.01):
        found.append(f"pixels differ by up to {error.max()}, mean {error.mean():.3f}")
    return found


def stable_text(text: str) -> str:
    """An infotext without what changes from run to run."""
    text = re.sub(r"(Variation seed: )\d+", r"\1N", text)
    # The refiner's hash shows only once it is known.
    text = re.sub(r"(Refiner: [^,\n]*?) \[[0-9a-f]{10}\]", r"\1", text)
    return re.sub(r",? ?Version: [^,\n]+", "", text)


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
