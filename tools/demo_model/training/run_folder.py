"""A training run's folder: state to resume from, log file, sample sheets."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def learning_rate(step: int, steps: int, peak: float, warm_up: int, fade_share: float) -> float:
    """Warm-up, plateau, linear fade over the last part; a resumed run may still move its end."""
    rise = (step + 1) / warm_up
    fade = (steps - step) / max(1.0, steps * fade_share)
    return peak * min(1.0, rise, max(0.02, fade))


class RunFolder:
    """Writes under one folder; a later process that opens the same folder continues from it."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path = path
        self.stage = stage
        self._started = time.monotonic()
        path.mkdir(parents=True, exist_ok=True)

    @property
    def state_path(self) -> Path:
        return self.path / f"{self.stage}.state.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state in one step, so that a run cut off here leaves the former one."""
        draft = self.state_path.with_suffix(".draft")
        torch.save(state, draft)
        draft.rename(self.state_path)

    def load(self) -> dict[str, Any] | None:
        """The last state, or None at the beginning of a run."""
        if not self.state_path.exists():
            return None
        return torch.load(self.state_path, map_location="cpu", weights_only=True)

    def log(self, step: int, **figures: float) -> None:
        """One JSON line per report."""
        elapsed = round(time.monotonic() - self._started, 1)
        entry = {"stage": self.stage, "step": step, "elapsed_s": elapsed} | {
            name: round(value, 5) for name, value in figures.items()
        }
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def sheet(self, name: str, pictures: Tensor, columns: int) -> None:
        """Pictures [N, 3, H, W] in 0..1 as one PNG."""
        save_sheet(self.path / f"{self.stage}-{name}.png", pictures, columns)


def save_sheet(path: Path, pictures: Tensor, columns: int) -> None:
    """Pictures [N, 3, H, W] in 0..1, row by row."""
    count, _, height, width = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(pictures.clamp(0.0, 1.0)):
        tile = (picture.permute(1, 2, 0).cpu().float().numpy() * 255.0 + 0.5).astype(np.uint8)
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = tile
    Image.fromarray(sheet).save(path)
