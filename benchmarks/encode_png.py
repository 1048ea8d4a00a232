"""The time from pictures to an answer's text: ours over Pillow's PNG level 6 and json.dumps.

    python benchmarks/encode_png.py

Both sides run in turn in one process; the best of several runs counts. The goal is 0.35.
"""

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from sdapi.images import encode_png, to_base64

SIDE = 1024
RUNS = 7
GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "inputs"
TEXT = {"parameters": "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7.0, Seed: 1, Size: 1024x1024"}


def pictures() -> dict[str, Image.Image]:
    """Pictures from easy to hard; "textured" is the nearest to what diffusion models make."""
    numbers = np.random.default_rng(0)
    smooth = Image.open(GOLDEN / "big256x192.png").convert("RGB").resize((SIDE, SIDE), 1)
    texture = np.zeros((SIDE, SIDE), np.float32)
    for step in (2, 4, 8, 16, 32):  # detail at every size, as photographs have
        spots = numbers.normal(0, step, (SIDE // step, SIDE // step)).astype(np.float32)
        texture += np.asarray(Image.fromarray(spots).resize((SIDE, SIDE), 3))
    grain = numbers.normal(0, 2, (SIDE, SIDE, 3))
    textured = np.asarray(smooth) * 0.5 + 64 + texture[:, :, None] + grain
    return {
        "mask": Image.open(GOLDEN / "mask128.png").convert("RGB").resize((SIDE, SIDE), 0),
        "smooth": smooth,
        "textured": Image.fromarray(np.clip(textured, 0, 255).astype(np.uint8)),
        "noise": Image.fromarray(numbers.integers(0, 256, (SIDE, SIDE, 3), np.uint8)),
    }


def theirs(image: Image.Image) -> int:
    """Pillow's usual PNG, base64, json.dumps of the whole answer; gives the PNG's size."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    json.dumps({"images": [base64.b64encode(out.getvalue()).decode()], "parameters": TEXT})
    return len(out.getvalue())


def ours(image: Image.Image) -> int:
    """Our PNG and base64, put into the answer as it is: base64 needs no escaping."""
    data = encode_png(image, TEXT)
    head, tail = json.dumps({"parameters": TEXT}).encode(), b""
    b"".join([b'{"images":["', to_base64(data).encode(), b'"],', head[1:], tail])
    return len(data)


def best(run: Callable[[Image.Image], int], image: Image.Image) -> tuple[float, int]:
    size, times = 0, list[float]()
    for _ in range(RUNS):
        start = time.perf_counter()
        size = run(image)
        times.append(time.perf_counter() - start)
    return min(times), size


def main() -> None:
    print(f"{'picture':10} {'Pillow 6 ms':>12} {'ours ms':>9} {'ratio':>6} {'size ratio':>11}")
    for name, image in pictures().items():
        their_time, their_size = best(theirs, image)
        our_time, our_size = best(ours, image)
        print(
            f"{name:10} {their_time * 1000:12.1f} {our_time * 1000:9.1f} "
            f"{our_time / their_time:6.2f} {our_size / their_size:11.2f}"
        )


if __name__ == "__main__":
    main()
