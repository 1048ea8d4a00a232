"""Train the demo model: `python -m tools.demo_model.train vae`, then `... diffusion`.

A run that was cut off goes on where its folder says; the same command is given again.
"""

import argparse
import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tools.demo_model.training.decoder import DecoderPlan, train_decoder
from tools.demo_model.training.diffusion import DiffusionPlan, train_diffusion
from tools.demo_model.training.text import TextPlan, train_text
from tools.demo_model.training.vae import VaePlan, train_vae


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over all weights in their order."""
    digest = hashlib.sha256()
    for weight in model.state_dict().values():
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_arguments() -> argparse.Namespace:
    """Options that are not given keep the plan's defaults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("vae", "text", "diffusion", "decoder"))
    parser.add_argument("--folder", type=Path, default=Path("demo_train"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--print-hash", action="store_true", help="print the final weights' hash")
    for name in ("size", "pictures", "steps", "until", "batch", "workers", "seed"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument(
        "--start-from",
        type=Path,
        help="vae: a checkpoint whose VAE is trained on; diffusion: a run's averaged weights",
    )
    parser.add_argument(
        "--bf16", action="store_true", default=None, help="bfloat16 products; the default on a GPU"
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
    if arguments.device == "cpu":
        torch.use_deterministic_algorithms(True)
    model: nn.Module
    if arguments.stage == "vae":
        model = train_vae(VaePlan(**given(VaePlan, arguments)))
    elif arguments.stage == "text":
        model = train_text(TextPlan(**given(TextPlan, arguments)))
    elif arguments.stage == "diffusion":
        model = train_diffusion(DiffusionPlan(**given(DiffusionPlan, arguments))).networks
    else:
        model = train_decoder(DecoderPlan(**given(DecoderPlan, arguments)))
    if arguments.print_hash:
        print(weights_hash(model))


if __name__ == "__main__":
    main()
