"""Put the weights of an exported checkpoint into a run's folder, to train on them there."""

import argparse
from pathlib import Path

import torch

from tools.demo_model.networks.checkpoint import load_checkpoint


def unpack(checkpoint: Path, folder: Path, size: int) -> None:
    """Write `diffusion{size}.ema.pt` and `vae.pt`, which `train` and `export` read there.

    Halves are all that a checkpoint keeps, and the optimiser's state is not in it.
    """
    networks, vae = load_checkpoint(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(networks.state_dict(), folder / f"diffusion{size}.ema.pt")
    torch.save(vae.state_dict(), folder / "vae.pt")


def main() -> None:
    """Read the command line and unpack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("sdapi/demo/sdapi-demo.safetensors")
    )
    parser.add_argument("--folder", type=Path, default=Path("demo_train"))
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    unpack(arguments.checkpoint, arguments.folder, arguments.size)


if __name__ == "__main__":
    main()
