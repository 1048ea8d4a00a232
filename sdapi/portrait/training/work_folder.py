"""What is kept while a training runs, so that it can go on after a crash.

<data>/portrait/trainings/<name>/
    request.json    what was asked for; another request begins anew
    prepared.json   there when the photos have been looked at: `Prepared`
    done.json       there when the model is whole: `Done`
    model/          the folder of the model to be, see `artefacts`; moved away when published
    weights/        checkpoints that may still be the best, and what the engine resumes from
    trials/         trial pictures, <step>_<number>.png
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sdapi.portrait.faces.face import Embedding
from sdapi.portrait.models.artefacts import PROCESSED, ArtefactError, Artefacts, ModelMeta
from sdapi.portrait.models.whole_files import write_whole
from sdapi.portrait.training.ranking import Metric, Trial
from sdapi.services.training import checkpoint_path

_REQUEST: Final = "request.json"
_PREPARED: Final = "prepared.json"
_DONE: Final = "done.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of the photos once they have been looked at."""

    #: of each photo, as a check tells it on the REST surface
    states: tuple[dict[str, Any], ...]
    #: crops below `processed_images/train` with their captions
    crops: tuple[tuple[str, str], ...]
    #: of the photos that are trained on
    embeddings: tuple[tuple[float, ...], ...] = ()
    metric: Metric = "l2"
    providers: Mapping[str, str] | None = None

    @property
    def vectors(self) -> list[Embedding]:
        return [np.array(values, np.float32) for values in self.embeddings]


@dataclass(frozen=True, slots=True)
class Done:
    """What a training has made, until somebody has written that down elsewhere."""

    meta: ModelMeta
    #: of each photo, as `Prepared` has them
    states: tuple[dict[str, Any], ...]


def as_kept(embeddings: Sequence[Embedding]) -> tuple[tuple[float, ...], ...]:
    """Embeddings as `Prepared` has them."""
    return tuple(tuple(float(value) for value in vector) for vector in embeddings)


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """The folder of one training."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def artefacts(self) -> Artefacts:
        return Artefacts(self.model)

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def crops(self) -> Path:
        return self.model / PROCESSED / "train"

    def open(self, request: Mapping[str, Any]) -> None:
        """Make it ready; what an unequal request left goes. Raises OSError."""
        if self._read(_REQUEST) != json.loads(json.dumps(request)) and self.path.exists():
            # First of all what another request's photos would be gone on from.
            (self.path / _PREPARED).unlink(missing_ok=True)
            shutil.rmtree(self.path)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.model, self.weights, self.trials):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._write(_REQUEST, request)

    def prepared(self) -> Prepared | None:
        """What an interrupted run knew of the photos; None where that cannot be read."""
        content = self._read(_PREPARED)
        if not isinstance(content, dict) or not self.crops.is_dir():
            return None
        try:
            lists = {
                "states": tuple(content["states"]),
                "crops": tuple((name, caption) for name, caption in content["crops"]),
                "embeddings": tuple(tuple(vector) for vector in content["embeddings"]),
            }
            known: dict[str, Any] = {**content, **lists}
            return Prepared(**known)
        except (KeyError, TypeError, ValueError):  # of another version
            return None

    def keep(self, prepared: Prepared) -> None:
        """From now on the photos need not be looked at again."""
        self._write(_PREPARED, asdict(prepared))

    def finish(self, done: Done, request: Mapping[str, Any]) -> None:
        """From now on nothing need be learned again for an equal request; raises OSError."""
        content = {"request": request, "about": done.meta.to_json(), "states": done.states}
        self._write(_DONE, content)

    def done(self, request: Mapping[str, Any], published: Artefacts) -> Done | None:
        """What was made for an equal request, and is here or published; None without it."""
        content = self._read(_DONE)
        if not isinstance(content, dict):
            return None
        try:
            if content["request"] != json.loads(json.dumps(request)):
                return None
            done = Done(ModelMeta.from_json(content["about"]), tuple(content["states"]))
        except (ArtefactError, KeyError, TypeError):  # of another version
            return None
        return done if self.artefacts.hold(done.meta) or published.hold(done.meta) else None

    def settle(self, done: Done) -> None:
        """What was made here is written down elsewhere: delete it, but nothing made since then."""
        content = self._read(_DONE)
        made = content.get("about") if isinstance(content, dict) else None
        # As texts: a score that is no number equals itself there.
        if json.dumps(made) == json.dumps(done.meta.to_json()):
            self.delete()

    def restart(self) -> None:
        """Forget what a run that was cut short while it looked at photos has left."""
        shutil.rmtree(self.model)
        self.model.mkdir(mode=0o700)

    def touch(self) -> None:
        """Somebody works here: the folder is no remains. Raises OSError without it."""
        os.utime(self.path)

    def trial_path(self, trial: Trial) -> Path:
        return self.trials / f"{trial.step}_{trial.number}.png"

    def weights_of(self, trial: Trial) -> Path:
        return checkpoint_path(self.weights, trial.step)

    def drop_weights(self, trial: Trial) -> None:
        """Those of a step that is not among the best; what stays costs its place alone."""
        try:
            self.weights_of(trial).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be deleted: %s", self.weights_of(trial), error)

    def delete(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(self.path / name, json.dumps(content, ensure_ascii=False).encode())
