"""Training steps a second, over a bare loop of peft on the same model.

    python -m benchmarks.portrait_train [updates] [pixels]

Both sides train the demo checkpoint's UNet and text encoder on one picture in batches of one, with
AdamW and clipped gradients. The bare loop has its latent and tokens made beforehand and writes
nothing. Turns alternate, and seconds are the process's own, so that what else the machine does
hits both or none.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model

from sdapi.engine.models.device_models import Models
from sdapi.engine.training.job import LoraShape, TrainingJob, TrainingMonitor, TrainingPicture
from sdapi.engine.training.training_run import TrainingRun
from sdapi.engine.weights.model_file import ModelFile
from sdapi.services.catalog.catalog import DEMO_CHECKPOINT
from tests.engines import cpu_models
from tests.portraits.people import FOLDER

_TURNS = 5
_RANK = 32
_UNET = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
_CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "conv"]
_TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
_CAPTION = "a portrait of a person"


def main(updates: int, side: int) -> None:
    """Print steps a second of both sides and their ratio."""
    file = ModelFile.of(DEMO_CHECKPOINT, DEMO_CHECKPOINT.with_suffix(".yaml"))
    models = cpu_models()
    bare = _bare(models, file, side)
    with tempfile.TemporaryDirectory() as folder:
        run = _ours(models, file, side, Path(folder))
        for _ in range(8):  # every cut of the picture is encoded
            run.update()
            bare()
        ratios: list[float] = []
        for _ in range(_TURNS):
            theirs_s, ours_s = _timed(bare, updates), _timed(run.update, updates)
            ratios.append(theirs_s / ours_s)
            speeds = f"{updates / theirs_s:.2f} steps/s bare, {updates / ours_s:.2f} here"
            print(f"{speeds}, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


def _ours(models: Models, file: ModelFile, side: int, folder: Path) -> TrainingRun:
    picture = TrainingPicture(FOLDER / "person_0.jpg", _CAPTION)
    shape = LoraShape(_RANK, _RANK / 2, has_convolutions=True)  # as the demo's are trained
    job = TrainingJob("bench", file, (picture,), folder, side, 10_000, 10_000, shape)
    run = TrainingRun(models, job, TrainingMonitor())
    run.begin()
    return run


def _bare(models: Models, file: ModelFile, side: int) -> Callable[[], None]:
    """An update as one writes it by hand."""
    with models.checkpoint(file) as loaded:
        parts = loaded.components
        unet, text = deepcopy(parts.unet), deepcopy(parts.text_encoders[0].model)
    for module, names in ((unet, [*_UNET, *_CONVOLUTIONS]), (text, _TEXT)):
        config = LoraConfig(r=_RANK, lora_alpha=_RANK // 2, target_modules=names)
        inject_adapter_in_model(config, module)
    groups = [[p for p in module.parameters() if p.requires_grad] for module in (unet, text)]
    optimiser = torch.optim.AdamW(
        [{"params": groups[0], "lr": 1e-4}, {"params": groups[1], "lr": 5e-5}], weight_decay=1e-2
    )
    latent = torch.randn(1, 4, side // 8, side // 8)
    tokens = torch.full((1, 77), 49407)
    alphas = parts.alphas_cumprod

    def update() -> None:
        noise, t = torch.randn_like(latent), torch.randint(1000, (1,))
        noisy = alphas[t] ** 0.5 * latent + (1 - alphas[t]) ** 0.5 * noise
        states = text(input_ids=tokens).last_hidden_state
        predicted = unet(noisy, t, encoder_hidden_states=states).sample
        F.mse_loss(predicted, noise).backward()
        torch.nn.utils.clip_grad_norm_([*groups[0], *groups[1]], 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return update


def _timed(work: Callable[[], object], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        work()
    return time.process_time() - started


if __name__ == "__main__":
    main(*(int(value) for value in (*sys.argv[1:], *("10", "128")[len(sys.argv) - 1 :])))
