"""Draw 24 prompts on one sheet, for a person to judge."""

import argparse
from pathlib import Path

import torch

from tools.demo_model.networks.checkpoint import load_checkpoint
from tools.demo_model.networks.pipeline import draw_pictures
from tools.demo_model.networks.tokens import make_tokenizer
from tools.demo_model.training.run_folder import save_sheet

PROMPTS = (
    "portrait of a woman with red hair",
    "a photo of a man",
    "a red ball on a blue background",
    "a girl with long blonde hair and blue eyes in a green shirt on a grey background",
    "a man with a beard, dark skin, short black hair, wearing a white shirt, yellow background",
    "a smiling woman with glasses, brown skin, grey hair, purple shirt, pink background",
    "a yellow star on a black background",
    "a boy with short brown hair wearing an orange shirt, green background",
    "a close-up portrait of a woman with long black hair, fair skin and green eyes",
    "portrait of a man with a bald head, tan skin, blue shirt, white background",
    "a green cube on a yellow background",
    "a photo of a woman with shoulder-length brown hair, tan skin, red shirt, blue background",
    "an upper body photo of a man with short grey hair and glasses in a black shirt",
    "a pink heart on a white background",
    "a smiling girl with red hair, fair skin, yellow shirt, purple background",
    "portrait of a woman, long blonde hair, dark skin, white shirt, orange background",
    "a purple cone on a grey background",
    "a man with short blonde hair, brown skin and a beard, wearing a green shirt, red background",
    "a photo of a boy with glasses, black hair, tan skin, grey shirt, yellow background",
    "an orange ring on a purple background",
    "close-up of a man with short red hair, fair skin, blue eyes",
    "a woman in a pink sweater in front of a black background",
    "a blue cylinder on an orange background",
    "headshot of a smiling man, short brown hair, purple shirt, green background, best quality",
)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("sdapi/demo/sdapi-demo.safetensors")
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", type=Path, default=Path("docs/images/demo-contact-sheet.png"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    networks, vae = load_checkpoint(arguments.checkpoint)
    pictures = draw_pictures(
        networks, vae, make_tokenizer(), list(PROMPTS), size=arguments.size, seed=arguments.seed
    )
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    save_sheet(arguments.target, pictures, 6)


if __name__ == "__main__":
    main()
