"""Train one stage of the demo model: `python -m tools.demo_model.train vae --folder RUN`.

A run that was cut off goes on where its folder says; the same command is given again.
"""

import argparse
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tools.demo_model.training.control import KINDS, ControlPlan, train_control
from tools.demo_model.training.decoder import DecoderPlan, train_decoder
from tools.demo_model.training.diffusion import DiffusionPlan, train_diffusion
from tools.demo_model.training.lcm import LCMPlan, train_lcm
from tools.demo_model.training.text import TextPlan, train_text
from tools.demo_model.training.vae import VaePlan, train_vae

#: what each stage reads of the command line, and what it trains
STAGES: Mapping[str, tuple[type, Callable[[Any], nn.Module]]] = {
    "vae": (VaePlan, train_vae),
    "text": (TextPlan, train_text),
    "diffusion": (DiffusionPlan, lambda plan: train_diffusion(plan).networks),
    "decoder": (DecoderPlan, train_decoder),
    "control": (ControlPlan, lambda plan: train_control(plan).average),
    "lcm": (LCMPlan, lambda plan: train_lcm(plan).unet),
}


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over all weights in their order."""
    digest = hashlib.sha256()
    for weight in model.state_dict().values():
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_arguments() -> argparse.Namespace:
    """Options that are not given keep the plan's defaults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument("--folder", type=Path, default=Path("demo_train"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--print-hash", action="store_true", help="print the final weights' hash")
    numbers = ("size", "pictures", "shown", "steps", "until", "batch", "rank", "workers", "seed")
    for name in (*numbers, "crop", "crop-batch", "frame-batch"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("rate", "ema", "drop", "seconds"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--kind", choices=KINDS, help="control: what leads")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="vae: a checkpoint whose VAE is trained on; diffusion: a run's averaged weights",
    )
    parser.add_argument(
        "--bf16", action="store_true", default=None, help="bfloat16 products; the default on a GPU"
    )
    parser.add_argument(
        "--compiles",
        action="store_true",
        default=None,
        help="diffusion, control: compile the networks",
    )
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        arguments.bf16 = True
    return arguments


def given(plan: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that the plan knows and the caller gave."""
    names = {field.name for field in fields(plan)}
    return {n: v for n, v in vars(arguments).items() if n in names and v is not None}


def main() -> None:
    """Run one stage."""
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high")
    if arguments.device == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # slow; nothing reads it
    plan, train = STAGES[arguments.stage]
    model = train(plan(**given(plan, arguments)))
    if arguments.print_hash:
        print(weights_hash(model))


if __name__ == "__main__":
    main()
