import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.models.device_models import Models
from sdapi.engine.networks.layer_index import layer_index
from sdapi.engine.networks.network_file import read_network
from sdapi.engine.networks.selection import LoraUse, NetworkFiles, NetworkSet
from sdapi.engine.training.job import LoraShape, TrainingMonitor, TrainingPicture
from sdapi.engine.training.training_run import TrainingRun
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import ModelUnusable, NanProduced, OutOfMemory
from sdapi.services.catalog.model_files.safetensors_header import sha256_of_tensors
from tests.engines import cpu_engine, cpu_models, tiny_job
from tests.models.builders import FEW_WORDS, build_sd1, build_sd2, build_sdxl
from tests.unit.engine.training.lessons import begun, finished, lesson, pictures

BUILDERS = {"sd1": build_sd1, "sd2": build_sd2, "sdxl": build_sdxl}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFile]:
    folder = tmp_path_factory.mktemp("checkpoints")
    made = {name: build() for name, build in BUILDERS.items()}
    return {
        name: ModelFile.of(built.write(folder / f"{name}.safetensors"))
        for name, built in made.items()
    }


def weights_of(models: Models, file: ModelFile) -> dict[str, torch.Tensor]:
    """Every tensor of a loaded checkpoint, copied."""
    with models.checkpoint(file) as loaded:
        modules = loaded.components.modules
        return {
            f"{i}.{name}": tensor.clone()
            for i, module in enumerate(modules)
            for name, tensor in module.state_dict().items()
        }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("family", list(BUILDERS))
def test_a_checkpoint_is_trained_and_stays_what_it_was(
    checkpoints: dict[str, ModelFile], tmp_path: Path, family: str
):
    models, file = cpu_models(), checkpoints[family]
    before = weights_of(models, file)
    run = finished(lesson(file, tmp_path), models)
    result = run.result()
    assert [step for step, _ in result.checkpoints] == [3, 6]
    first, last = (load_file(path) for _, path in result.checkpoints)
    ups = [k for k in last if k.endswith("lora_up.weight")]
    assert any(k.startswith("lora_te") for k in ups)
    # A text encoder's last layers tell nothing where an earlier one is read.
    assert sum(bool(last[k].any()) for k in ups) > 0.9 * len(ups)
    assert not same(first, last)
    assert result.loss > 0
    run.close()
    assert same(before, weights_of(models, file))


@pytest.mark.parametrize("has_convolutions", [False, True])
@pytest.mark.parametrize("family", list(BUILDERS))
def test_the_result_is_a_lora_that_the_engine_merges_whole(
    checkpoints: dict[str, ModelFile], tmp_path: Path, family: str, has_convolutions: bool
):
    models, file = cpu_models(), checkpoints[family]
    shape = LoraShape(8, 4.0, has_convolutions=has_convolutions)
    path = finished(lesson(file, tmp_path, shape=shape), models).result().checkpoints[-1][1]
    before = weights_of(models, file)
    wanted = NetworkSet((LoraUse("a", ModelFile.of(path)),))
    with models.checkpoint(file) as loaded:
        assert models.activate(loaded, wanted, NetworkFiles()) == ()
    after = weights_of(models, file)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    layers = read_network(path).layers
    assert len(changed) > 0.9 * len(layers)
    with models.checkpoint(file) as loaded:
        assert layers.keys() <= layer_index(loaded.components).keys()
    convolutions = [k for k, v in load_file(path).items() if v.shape[2:] == (3, 3)]
    assert bool(convolutions) == has_convolutions


def test_convolutions_are_trained_where_they_are_wanted(
    checkpoints: dict[str, ModelFile], tmp_path: Path
):
    shape = LoraShape(8, 4.0, has_convolutions=True)
    job = lesson(checkpoints["sd1"], tmp_path, steps=2, shape=shape, learning_rate=1e-2)
    path = finished(job).result().checkpoints[-1][1]
    tensors = load_file(path)
    for layer in (
        "down_blocks_0_resnets_0_conv1",
        "down_blocks_0_downsamplers_0_conv",
        "mid_block_resnets_1_time_emb_proj",
        "up_blocks_0_upsamplers_0_conv",
        "up_blocks_1_resnets_0_conv_shortcut",
        "up_blocks_1_resnets_0_conv2",
    ):
        assert tensors[f"lora_unet_{layer}.lora_up.weight"].any(), layer
    assert not [key for key in tensors if "conv_in" in key or "conv_out" in key]
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["ss_network_args"])
    assert told == {"conv_dim": "8", "conv_alpha": "4"}


def test_sdxl_convolutions_have_the_names_of_kohyas_programs(
    checkpoints: dict[str, ModelFile], tmp_path: Path
):
    shape = LoraShape(8, 4.0, has_convolutions=True)
    job = lesson(checkpoints["sdxl"], tmp_path, steps=1, shape=shape)
    layers = read_network(finished(job).result().checkpoints[-1][1]).layers.keys()
    assert {
        "lora_unet_input_blocks_1_0_in_layers_2",
        "lora_unet_input_blocks_1_0_emb_layers_1",
        "lora_unet_input_blocks_1_0_out_layers_3",
        "lora_unet_input_blocks_3_0_op",
        "lora_unet_output_blocks_2_0_skip_connection",
    } <= layers
    assert any(re.fullmatch(r"lora_unet_output_blocks_\d+_\d_conv", name) for name in layers)
    assert not [name for name in layers if "resnets" in name or "samplers" in name]


def test_a_training_learns(checkpoints: dict[str, ModelFile], tmp_path: Path):
    job = lesson(checkpoints["sd1"], tmp_path, steps=1, checkpoint_every=100, flips=False)
    job = replace(job, pictures=job.pictures[:1], learning_rate=3e-3, steps=50)
    run = begun(job)
    losses = []
    while not run.is_finished:
        run.update()
        losses.append(run.monitor.loss)
    assert losses[-1] < 0.97 * losses[19]  # means of twenty


def test_equal_trainings_make_equal_weights(checkpoints: dict[str, ModelFile], tmp_path: Path):
    file = checkpoints["sd1"]
    first, second, other = (
        load_file(finished(lesson(file, tmp_path / name, seed=seed)).result().checkpoints[-1][1])
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_resumed_training_makes_the_weights_of_one_without_interruption(
    checkpoints: dict[str, ModelFile], tmp_path: Path, stop_at: int
):
    file = checkpoints["sd1"]
    whole = finished(lesson(file, tmp_path / "whole")).result()
    job = lesson(file, tmp_path / "parts")
    run = begun(job)
    for _ in range(stop_at):
        run.update()
    run.suspend()
    run.close()
    resumed = begun(job)
    assert resumed.monitor.resumed_at == stop_at
    while not resumed.is_finished:
        resumed.update()
    for (_, a), (_, b) in zip(whole.checkpoints, resumed.result().checkpoints, strict=True):
        assert same(load_file(a), load_file(b))


def test_a_crash_costs_what_came_after_the_last_checkpoint(
    checkpoints: dict[str, ModelFile], tmp_path: Path
):
    job = lesson(checkpoints["sd1"], tmp_path)
    run = begun(job)
    for _ in range(5):
        run.update()
    assert begun(job).monitor.step == 3


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"steps": 7},
        {"learning_rate": 1e-3},
        {"shape": LoraShape(8, 4.0, has_convolutions=True)},
    ],
)
def test_another_training_does_not_go_on_with_this_one(
    checkpoints: dict[str, ModelFile], tmp_path: Path, change: dict[str, float]
):
    file = checkpoints["sd1"]
    run = begun(lesson(file, tmp_path))
    run.update()
    run.suspend()
    assert begun(lesson(file, tmp_path, **change)).monitor.step == 0
    assert begun(lesson(file, tmp_path)).monitor.step == 1


def test_a_broken_state_is_no_state(checkpoints: dict[str, ModelFile], tmp_path: Path):
    job = lesson(checkpoints["sd1"], tmp_path)
    run = begun(job)
    run.update()
    run.suspend()
    state = tmp_path / "resume.pt"
    state.write_bytes(state.read_bytes()[:1000])
    assert begun(job).monitor.step == 0


def test_memory_for_compute_makes_the_same_weights(
    checkpoints: dict[str, ModelFile], tmp_path: Path
):
    kept, anew = (
        load_file(finished(job).result().checkpoints[-1][1])
        for job in (
            lesson(checkpoints["sd1"], tmp_path / "kept", steps=2),
            lesson(checkpoints["sd1"], tmp_path / "anew", steps=2, checkpoints_gradients=True),
        )
    )
    assert all(torch.allclose(kept[k].float(), anew[k].float(), atol=1e-3) for k in kept)


def test_without_text_the_text_encoders_are_left_out(
    checkpoints: dict[str, ModelFile], tmp_path: Path
):
    shape = LoraShape(8, 4.0, has_text=False)
    job = lesson(checkpoints["sdxl"], tmp_path, steps=1, shape=shape)
    names = load_file(finished(job).result().checkpoints[-1][1])
    assert names
    assert all(name.startswith("lora_unet_") for name in names)


def test_the_header_tells_of_the_training(checkpoints: dict[str, ModelFile], tmp_path: Path):
    told = {"ss_output_name": "anna"}
    job = lesson(checkpoints["sdxl"], tmp_path, steps=1, metadata=told)
    path = finished(job).result().checkpoints[0][1]
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        types = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118  # no mapping
    assert types == {torch.float16}
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert (metadata["ss_steps"], metadata["ss_output_name"]) == ("1", "anna")
    assert metadata["sshs_model_hash"] == sha256_of_tensors(path)


def test_ranks_are_at_most_half_of_a_layers_width(
    checkpoints: dict[str, ModelFile], tmp_path: Path
):
    job = lesson(checkpoints["sd1"], tmp_path, steps=1, shape=LoraShape(128, 64.0))
    tensors = load_file(finished(job).result().checkpoints[-1][1])
    downs = {k: v for k, v in tensors.items() if k.endswith("lora_down.weight")}
    for name, down in downs.items():
        up = tensors[name.replace("lora_down", "lora_up")]
        assert down.shape[0] == min(128, min(down.shape[1], up.shape[0]) // 2)
        # alpha / rank stays what was asked for
        alpha = tensors[name.replace("lora_down.weight", "alpha")].item()
        assert alpha == down.shape[0] / 2


def test_pictures_between_updates_are_what_they_were(
    checkpoints: dict[str, ModelFile], tmp_path: Path
):
    """A job is drawn with a LoRA while a training has its turns between the steps."""
    engine, file = cpu_engine(), checkpoints["sd1"]
    lora = finished(lesson(file, tmp_path / "lora", learning_rate=1e-2)).result().checkpoints[-1][1]
    networks = NetworkFiles({"a": ModelFile.of(lora)})
    job = tiny_job(file, prompts=("a cat <lora:a:1>",), networks=networks, steps=4)
    alone = engine.run(job, Monitor()).images[0].image
    apart = finished(lesson(file, tmp_path / "apart")).result().checkpoints[-1][1]

    run = engine.begin_training(lesson(file, tmp_path / "beside"), TrainingMonitor())
    monitor = Monitor()
    monitor.between_steps = lambda: run.update(while_drawing=True)
    beside = engine.run(job, monitor).images[0].image
    assert run.monitor.step == 4
    run.update()
    assert engine.run(job, Monitor()).images[0].image.tobytes() == alone.tobytes()
    run.update()
    assert beside.tobytes() == alone.tobytes()
    assert same(load_file(run.result().checkpoints[-1][1]), load_file(apart))


def test_a_running_training_keeps_its_checkpoint_in_memory(
    checkpoints: dict[str, ModelFile], tmp_path: Path
):
    engine, file = cpu_engine(), checkpoints["sd1"]
    run = engine.begin_training(lesson(file, tmp_path), TrainingMonitor())
    engine.clear()
    assert engine.has_loaded(file)
    run.update()
    run.close()
    engine.clear()
    assert not engine.has_loaded(file)


def test_short_memory_is_told_and_leaves_the_engine_usable(
    checkpoints: dict[str, ModelFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine, file = cpu_engine(), checkpoints["sd1"]
    run = engine.begin_training(lesson(file, tmp_path), TrainingMonitor())

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("sdapi.engine.training.objective.F.mse_loss", exhausted)
        with pytest.raises(OutOfMemory, match=r"a training at 64x64, rank 8; try a smaller"):
            run.update()
    run.close()
    assert engine.run(tiny_job(file), Monitor()).images


def test_a_loss_that_is_no_number_is_an_error(checkpoints: dict[str, ModelFile], tmp_path: Path):
    run = begun(lesson(checkpoints["sd1"], tmp_path, learning_rate=float("inf")))
    run.update()
    with pytest.raises(NanProduced, match="no number"):
        run.update()


def test_a_checkpoint_for_inpainting_is_refused(tmp_path: Path):
    built = build_sd1(in_channels=9, words=FEW_WORDS)
    file = ModelFile.of(built.write(tmp_path / "inpainting.safetensors"))
    with pytest.raises(ModelUnusable, match="inpainting"):
        begun(lesson(file, tmp_path))


def test_a_picture_that_cannot_be_read_is_named(checkpoints: dict[str, ModelFile], tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    broken = TrainingPicture(tmp_path / "broken.jpg", "a person")
    run = begun(lesson(checkpoints["sd1"], tmp_path, pictures=(broken,)))
    with pytest.raises(ModelUnusable, match=r"broken\.jpg"):
        run.update()


def test_a_long_caption_is_cut(checkpoints: dict[str, ModelFile], tmp_path: Path):
    job = lesson(checkpoints["sd1"], tmp_path)
    long = tuple(replace(each, caption="portrait, " * 200) for each in pictures(tmp_path))
    run = begun(replace(job, pictures=long))
    run.update()
    assert run.monitor.step == 1


def test_a_closed_training_is_over(checkpoints: dict[str, ModelFile], tmp_path: Path):
    run = TrainingRun(cpu_models(), lesson(checkpoints["sd1"], tmp_path), TrainingMonitor())
    with pytest.raises(RuntimeError, match="before its begin"):
        run.update()
