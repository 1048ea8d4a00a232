"""How far answers and files are from recorded ones, and how far they may be."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdapi.images import read_infotext
from tests.replay.cases import Case
from tests.replay.golden_volatile import is_volatile

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


def tolerance(name: str) -> int:
    """How far a pixel may be off, of 255."""
    return max([TOLERANCE, *(wide for part, wide in WIDE.items() if part in name)])


@dataclass(frozen=True, slots=True)
class Pictures:
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


def compare_bodies(ours: Any, theirs: Any, pictures: Pictures, where: str = "body") -> list[str]:
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
