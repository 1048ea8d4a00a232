"""What a training needs to go on after its process has died, in one file."""

import os
import pickle
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch
from torch import Tensor

from sdapi.engine.training.job import TrainingJob

STATE = "resume.pt"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class TrainingState:
    """A training after `step` updates."""

    step: int
    #: float32, by the names of `Adapted.tensors`
    adapters: dict[str, Tensor]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]
    losses: list[float]

    def save(self, job: TrainingJob) -> None:
        """Write it whole into the job's folder, in place of an earlier one."""
        content = {
            "format": _FORMAT,
            "job": fingerprint(job),
            "step": self.step,
            "adapters": {name: tensor.detach() for name, tensor in self.adapters.items()},
            "optimiser": self.optimiser,
            "scaler": self.scaler,
            "losses": self.losses,
        }
        path = job.folder / STATE
        # Whoever takes a training over may begin before its former holder has ended.
        draft = path.with_name(f"{STATE}.{token_hex(4)}.draft")
        try:
            with draft.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def load(cls, job: TrainingJob) -> "TrainingState | None":
        """What an equal job has left in the folder; None without it, or when it is not whole."""
        try:
            content = torch.load(job.folder / STATE, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
            return None
        known = content if isinstance(content, dict) else {}
        if (known.get("format"), known.get("job")) != (_FORMAT, fingerprint(job)):
            return None
        return cls(*(known[name] for name in ("step", "adapters", "optimiser", "scaler", "losses")))


def fingerprint(job: TrainingJob) -> str:
    """What two jobs have in common that would make the same weights; pictures by their bytes."""
    pictures = [(_digest(picture.path), picture.caption) for picture in job.pictures]
    numbers = (
        *(job.checkpoint, job.resolution, job.steps, job.checkpoint_every, job.shape),
        *(job.learning_rate, job.text_learning_rate, job.accumulation, job.seed, job.flips),
    )
    return sha256(repr((pictures, numbers)).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
