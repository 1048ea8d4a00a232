"""Measure a checkpoint: faces found, colours as asked, VAE reconstruction, img2img."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from tools.demo_model.measuring.colour_check import (
    ATTRIBUTES,
    ColourNames,
    asked_colours,
    learn_colour_names,
    measured_renderings,
    region_colours,
    right_colours,
)
from tools.demo_model.measuring.landmarks import FaceFinder, make_face_finder
from tools.demo_model.networks.checkpoint import load_checkpoint
from tools.demo_model.networks.models import Networks
from tools.demo_model.networks.pipeline import draw_pictures
from tools.demo_model.networks.tokens import make_tokenizer
from tools.demo_model.pictures.dataset import UNSEEN, Picture, Portrait, draw_sample, render
from tools.demo_model.pictures.features import eye_distance
from tools.demo_model.training.run_folder import save_sheet
from tools.demo_model.training.vae import psnr, reconstruct, to_tensor

_PROMPT_STREAM = 5
_SEED = 2024
_LANDMARK_LIMIT = 0.08  # of the eye distance
_STRENGTH = 0.4


def full_prompt(sample: Portrait) -> str:
    """A prompt that names everything which is measured."""
    who, view = sample.who, sample.view
    extra = ", glasses" * who.has_glasses + ", a beard" * who.has_beard
    return (
        f"a photo of a {who.kind} with {who.hair_length} {who.hair_name} hair, {who.skin_name} skin"
        f"{extra} and {who.eyes_name} eyes, wearing a {view.shirt_name} shirt, "
        f"on a {view.background_name} background"
    ).replace("medium", "shoulder-length")


def portraits(stream: int, count: int) -> list[Portrait]:
    """The stream's first portraits of people with hair."""
    found: list[Portrait] = []
    number = 0
    while len(found) < count:
        sample = draw_sample(stream, number)
        if isinstance(sample, Portrait) and sample.who.hair_length != "bald":
            found.append(sample)
        number += 1
    return found


def to_bytes(pictures: Tensor) -> Picture:
    """Floats [N, 3, H, W] in 0..1 to bytes [N, H, W, 3]."""
    return (pictures.permute(0, 2, 3, 1).numpy() * 255.0 + 0.5).astype(np.uint8)


class Evaluation:
    """One checkpoint at one size, with everything that its measurements need."""

    def __init__(self, checkpoint: Path, size: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.size = size
        self.folder = folder
        self.networks: Networks
        self.vae: AutoencoderKL
        self.networks, self.vae = load_checkpoint(checkpoint)
        self.tokenizer: CLIPTokenizer = make_tokenizer()
        self.finder: FaceFinder = make_face_finder(folder / f"landmarks_{size}.dat", size)
        self.names: ColourNames = learn_colour_names(self.finder, size)

    def check_measure(self) -> dict[str, float]:
        """How often the measurements are right about renderings: what a perfect model would get."""
        seen = measured_renderings(self.finder, self.size, range(1000, 1100))
        right = [right_colours(self.names, asked, colours) for asked, colours in seen]
        return {f"measure_{a}": float(np.mean([r[a] for r in right])) for a in ATTRIBUTES}

    def text_to_image(self, count: int) -> dict[str, float]:
        """Share of pictures with exactly one face; share of asked colours that are there."""
        samples = portraits(_PROMPT_STREAM, count)
        prompts = [full_prompt(sample) for sample in samples]
        made = draw_pictures(
            self.networks, self.vae, self.tokenizer, prompts, size=self.size, seed=_SEED
        )
        save_sheet(self.folder / "evaluation-txt2img.png", made, 10)
        right = []
        for sample, picture in zip(samples, to_bytes(made), strict=True):
            faces = self.finder.find(picture)
            if len(faces) == 1:
                colours = region_colours(picture, faces[0])
                right.append(right_colours(self.names, asked_colours(sample), colours))
        shares = {f"colour_{a}": float(np.mean([r[a] for r in right])) for a in ATTRIBUTES}
        return {
            "one_face": len(right) / count,
            "colours": float(np.mean(list(shares.values()))),
            "colours_all_four": float(np.mean([all(r.values()) for r in right])),
            **shares,
        }

    def image_to_image(self, count: int) -> dict[str, float]:
        """Share of faces that are found again, with the same landmarks, after img2img."""
        samples = portraits(UNSEEN, count)
        pictures = [render(sample, self.size) for sample in samples]
        before = [self.finder.find(picture) for picture in pictures]
        kept = [i for i, faces in enumerate(before) if len(faces) == 1]
        start = to_tensor(np.stack([pictures[i] for i in kept]), "cpu") / 2.0 + 0.5
        prompts = [full_prompt(samples[i]) for i in kept]
        made = draw_pictures(
            self.networks,
            self.vae,
            self.tokenizer,
            prompts,
            size=self.size,
            seed=_SEED + 1,
            start=start,
            strength=_STRENGTH,
        )
        save_sheet(self.folder / "evaluation-img2img.png", torch.cat([start[:10], made[:10]]), 10)
        errors = []
        for i, picture in zip(kept, to_bytes(made), strict=True):
            faces, wanted = self.finder.find(picture), before[i][0]
            off = np.linalg.norm(faces[0] - wanted, axis=1).mean() if len(faces) == 1 else np.inf
            errors.append(off / eye_distance(wanted))
        found = [e for e in errors if np.isfinite(e)]
        return {
            "img2img_kept": float(np.mean([e < _LANDMARK_LIMIT for e in errors])),
            "img2img_found": len(found) / len(errors),
            "img2img_mean_error": float(np.mean(found)),
        }

    def reconstruction(self, count: int) -> dict[str, float]:
        """PSNR of the VAE on renderings that it never saw, objects among them."""
        pictures = np.stack([render(draw_sample(UNSEEN, i), self.size) for i in range(count)])
        wanted = to_tensor(pictures, "cpu")
        return {"vae_psnr_db": psnr(reconstruct(self.vae, wanted), wanted)}


def main() -> None:
    """Read the command line, measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("sdapi/demo/sdapi-demo.safetensors")
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path("demo_train"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    evaluation = Evaluation(arguments.checkpoint, arguments.size, arguments.folder)
    figures = evaluation.text_to_image(arguments.count)
    figures |= evaluation.reconstruction(arguments.count)
    figures |= evaluation.image_to_image(arguments.count)
    figures |= evaluation.check_measure()
    figures["seconds"] = time.monotonic() - started
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
