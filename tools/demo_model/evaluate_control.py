"""Measure a ControlNet: how far it leads pictures to unseen renderings, and how far prompts do."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel
from torch import Tensor

from tools.demo_model.evaluate import full_prompt, portraits, to_bytes
from tools.demo_model.measuring.agreement import edge_agreement
from tools.demo_model.networks.checkpoint import load_checkpoint, load_control
from tools.demo_model.networks.pipeline import draw_pictures
from tools.demo_model.networks.tokens import make_tokenizer
from tools.demo_model.pictures.dataset import UNSEEN, Picture, render
from tools.demo_model.training.control import KINDS, edges
from tools.demo_model.training.run_folder import save_sheet
from tools.demo_model.training.vae import psnr, to_tensor

_SEED = 2026
_LOW, _HIGH = 100.0, 200.0  # the preprocessor's usual thresholds


def lines(pictures: Picture) -> Picture:
    """The edges [N, H, W] of pictures."""
    return np.stack([edges(picture, _LOW, _HIGH, picture.shape[0]) for picture in pictures])


def agreement(kind: str, made: Tensor, wanted: Picture) -> float:
    """Of edges the mean F1 at three pixels; of a tile's pictures the PSNR in dB."""
    if kind == "canny":
        pairs = zip(lines(to_bytes(made)), lines(wanted), strict=True)
        return float(np.mean([edge_agreement(*pair) for pair in pairs]))
    return psnr(made * 2.0 - 1.0, to_tensor(wanted, "cpu"))


def main() -> None:
    """Read the command line, draw with and without control, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="canny")
    parser.add_argument("--demo", type=Path, default=Path("sdapi/demo"), help="folder of the files")
    parser.add_argument("--prompt", help="for every picture; else all of its colours are named")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--sheet", type=Path, help="a PNG: what leads, led, not led")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    networks, vae = load_checkpoint(arguments.demo / "sdapi-demo.safetensors")
    control = load_control(arguments.demo / f"sdapi-demo-{arguments.kind}.safetensors")
    samples = portraits(UNSEEN, arguments.count)
    wanted = np.stack([render(sample, arguments.size) for sample in samples])
    hints = to_tensor(wanted, "cpu") / 2.0 + 0.5
    if arguments.kind == "canny":
        found = torch.from_numpy(lines(wanted)).float() / 255.0
        hints = found[:, None].expand(-1, 3, -1, -1)
    given = arguments.prompt
    prompts = [full_prompt(sample) if given is None else given for sample in samples]
    size = arguments.size
    tokenizer = make_tokenizer()

    def drawn(control: ControlNetModel | None) -> Tensor:
        lead = None if control is None else (control, hints)
        return draw_pictures(networks, vae, tokenizer, prompts, size, _SEED, lead=lead)

    made = {"led": drawn(control), "not_led": drawn(None)}
    figures = {name: agreement(arguments.kind, each, wanted) for name, each in made.items()}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2))
    if arguments.sheet:
        save_sheet(arguments.sheet, torch.cat([hints, *made.values()]), arguments.count)


if __name__ == "__main__":
    main()
