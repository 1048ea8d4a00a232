"""Put the weights of an exported checkpoint into a run's folder, to train on them there."""

import argparse
from pathlib import Path

import torch

from tools.demo_model.networks.checkpoint import load_checkpoint


def unpack(checkpoint: Path, folder: Path) -> None:
    """Write `start.ema.pt`, for `train diffusion --start-from`, and `vae.pt`.

    Halves are all that a checkpoint keeps, and the optimiser's state is not in it. Raises
    FileExistsError where a run has begun: its latents and averages would not fit another VAE.
    """
    start, own_vae = folder / "start.ema.pt", folder / "vae.pt"
    for path in (start, own_vae):
        if path.exists():
            raise FileExistsError(f"{path} is there already; name an empty folder")
    networks, vae = load_checkpoint(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(networks.state_dict(), start)
    torch.save(vae.state_dict(), own_vae)


def main() -> None:
    """Read the command line and unpack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("sdapi/demo/sdapi-demo.safetensors")
    )
    parser.add_argument("--folder", type=Path, default=Path("demo_train"))
    arguments = parser.parse_args()
    unpack(arguments.checkpoint, arguments.folder)


if __name__ == "__main__":
    main()
