"""Train everything on one GPU in a given time: `python -m tools.demo_model.whole_run --folder RUN`.

Rendering and the text encoder use the processor while the VAE uses the GPU; the ControlNets, the
LCM-LoRA and the decoder share it at the end. Each stage is a program of its own (see `train`) with
a log in the folder, and goes on where it was when the same command is given again.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Stages:
    """Starts the programs of a run and waits for them."""

    folder: Path
    size: int
    started: float = field(default_factory=time.monotonic)

    def start(
        self, name: str, *arguments: object, module: str = "train"
    ) -> subprocess.Popen[bytes]:
        """Begin a program, unless it was done before; it prints to `NAME.out` in the folder."""
        if self._mark(name).exists():
            return subprocess.Popen(["true"])
        self.say(f"{name} begins")
        common = ("--folder", self.folder, "--size", self.size)
        words = [str(w) for w in (f"tools.demo_model.{module}", *arguments, *common)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (self.folder / f"{name}.out").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", *words], stdout=out, stderr=out, env=environment
            )

    def wait(self, **programs: subprocess.Popen[bytes]) -> None:
        """Until all have ended; exits when one failed."""
        for name, program in programs.items():
            if program.wait() != 0:
                sys.exit(f"{name} failed, see {self.folder / name}.out")
            self._mark(name).touch()
            self.say(f"{name} done")

    def _mark(self, name: str) -> Path:
        return self.folder / f"{name}.done"

    def say(self, sentence: str) -> None:
        print(f"{time.monotonic() - self.started:6.1f} s  {sentence}", flush=True)


def run(stages: Stages, pictures: int, seconds: float, workers: int, *, compiles: bool) -> None:
    """All stages, in `seconds` altogether, plus what starting them takes."""
    stages.folder.mkdir(parents=True, exist_ok=True)
    of_all, shared = ("--pictures", pictures, "--workers", 0), seconds * 0.15
    rendering = stages.start(
        "render", "--pictures", pictures, "--workers", workers, module="pictures.cache"
    )
    text = stages.start("text", "text", "--seconds", seconds * 0.12)
    crops = ("--crop", stages.size // 2, "--crop-batch", 24, "--frame-batch", 8)
    vae = ("--seconds", seconds * 0.18, "--rate", 5e-4, "--workers", 0)
    stages.wait(vae=stages.start("vae", "vae", *crops, *vae), text=text, render=rendering)
    steady = ["--batch", 256, "--rate", 8e-4, "--seconds", seconds * 0.60]
    steady += ["--compiles"] if compiles else []
    stages.wait(diffusion=stages.start("diffusion", "diffusion", *of_all, *steady))
    brief = (*of_all, "--seconds", shared)
    learners = {
        f"control_{kind}": stages.start(
            f"control_{kind}", "control", "--kind", kind, *brief, "--batch", 48
        )
        for kind in ("canny", "tile")
    }
    learners["lcm"] = stages.start("lcm", "lcm", *brief, "--batch", 48)
    windows = ("--crop-batch", 48, "--frame-batch", 8)
    learners["decoder"] = stages.start("decoder", "decoder", *brief, *windows)
    stages.wait(**learners)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo_train"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--pictures", type=int, default=12288)
    parser.add_argument("--seconds", type=float, default=550.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--eager", action="store_true", help="do not compile the UNet")
    given = parser.parse_args()
    stages = Stages(given.folder, given.size)
    run(stages, given.pictures, given.seconds, given.workers, compiles=not given.eager)


if __name__ == "__main__":
    main()
