"""What the answer to a job tells beside its pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sdapi.engine.jobs.job import Job
from sdapi.engine.text.cond import BatchCond
from sdapi.engine.text.notes import ti_hashes
from sdapi.errors import ModelUnusable


@dataclass(slots=True)
class Told:
    """Gathers it while the job is drawn."""

    job: Job
    #: infotext keys that come up, in order
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    #: what could not be used, in order
    warnings: dict[str, None] = field(default_factory=dict[str, None])

    def warn(self, texts: Sequence[str]) -> None:
        """Tell what cannot be used; raises `ModelUnusable` where the job is strict about it."""
        told = dict.fromkeys(texts)
        if told and self.job.networks.is_strict:
            raise ModelUnusable("; ".join(told))
        self.warnings |= told

    def loras(self, names: Sequence[str]) -> None:
        """Tell the LoRAs that act: names for now, who answers knows the hashes of the files."""
        if names:
            shown = dict.fromkeys((*self.extra.get("Lora hashes", ()), *names))
            self.extra["Lora hashes"] = tuple(shown)

    def texts(self, cond: BatchCond, *, is_second: bool) -> None:
        """Tell what encoding the prompts of a pass has brought up.

        Raises `ModelUnusable` as `warn` does.
        """
        for note in cond.notes:
            self.warn(note.refused)
        options = self.job.options
        if options.use_old_scheduling and any(note.depends_on_scheduling for note in cond.notes):
            self.extra["Old prompt editing timelines"] = True
        if is_second:
            return
        if hashes := ti_hashes(cond.notes, tells_bundled=self.job.networks.tells_bundled):
            self.extra.setdefault("TI hashes", hashes)
        if options.emphasis != "Original" and any(note.has_brackets for note in cond.notes):
            self.extra["Emphasis"] = options.emphasis

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """Those of the job, then those of its scripts, each once."""
        of_stages = (text for stages in self.job.stages for text in stages.warnings)
        return tuple(self.warnings | dict.fromkeys(of_stages))
