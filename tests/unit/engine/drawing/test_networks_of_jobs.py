"""Jobs that name networks: what they draw, what they leave behind, what they tell."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdapi.engine.engine import Engine
from sdapi.engine.jobs.job import Job, ModelFile, Result
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.networks.merge import MergedWeights
from sdapi.engine.networks.selection import NetworkFiles
from sdapi.errors import ModelUnusable
from tests.engines import cpu_engine, golden_file, tiny_job

CPU = torch.device("cpu")
#: of the tiny checkpoints' first attention
NAME = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
TEXT_NAME = "lora_te_text_model_encoder_layers_0_mlp_fc1"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return cpu_engine()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFile]:
    """LoRAs, good and bad, and embeddings, by name."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(1)
    contents: dict[str, dict[str, torch.Tensor]] = {
        "a": {f"{NAME}.diff": torch.randn(32, 32)},
        "b": {f"{NAME}.diff": torch.randn(32, 32), f"{TEXT_NAME}.diff": torch.randn(256, 64)},
        "nan": {f"{NAME}.diff": torch.full((32, 32), torch.nan)},
        "sdxl": {"lora_te2_text_model_encoder_layers_0_mlp_fc1.diff": torch.ones(2, 2)},
        "odd": {f"{NAME}.diff": torch.ones(5, 5), f"{TEXT_NAME}.diff": torch.ones(256, 64)},
        "bundle": {
            f"{NAME}.diff": torch.randn(32, 32),
            "bundle_emb.tinyti.string_to_param.*": torch.randn(2, 64),
        },
        "wide": {"emb": torch.ones(1, 768)},
    }
    for name, tensors in contents.items():
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / "broken.safetensors").write_bytes(b"broken")
    (folder / "hyper.pt").write_bytes(b"broken")
    found = {path.stem: ModelFile.of(path) for path in folder.iterdir()}
    return found


@pytest.fixture(scope="module")
def job(golden: Path, files: dict[str, ModelFile]) -> Job:
    loras = {name: file for name, file in files.items() if name not in ("wide", "hyper")}
    networks = NetworkFiles(loras, {"hyper": files["hyper"]}, (files["wide"],))
    return tiny_job(golden_file(golden, "tinyA"), negative_prompts=("dog",), networks=networks)


def run(engine: Engine, job: Job, prompt: str, **changes: Any) -> Result:
    return engine.run(replace(job, prompts=(prompt,), **changes), Monitor())


def pixels(result: Result) -> np.ndarray[Any, Any]:
    return np.asarray(result.images[0].image)


def test_pictures_depend_on_their_own_networks_alone(engine: Engine, job: Job):
    plain = pixels(run(engine, job, "a cat"))
    first = pixels(run(engine, job, "a cat <lora:a:1>"))
    second = pixels(run(engine, job, "a cat <lora:b:0.5>"))
    assert not np.array_equal(plain, first)
    assert not np.array_equal(first, second)
    assert np.array_equal(pixels(run(engine, job, "a cat <lora:a:1>")), first)
    assert np.array_equal(pixels(run(engine, job, "a cat <lora:b:0.5>")), second)
    assert np.array_equal(pixels(run(engine, job, "a cat")), plain)


def test_same_set_is_not_merged_again(engine: Engine, job: Job, monkeypatch: pytest.MonkeyPatch):
    run(engine, job, "a cat <lora:a:1>")
    merges = list[object]()
    real = MergedWeights.merge
    monkeypatch.setattr(
        MergedWeights, "merge", lambda self, nets: merges.append(nets) or real(self, nets)
    )
    run(engine, job, "another cat <lora:a:1>")
    assert merges == []
    run(engine, job, "a cat <lora:a:0.9>")
    assert len(merges) == 1


def test_names_of_those_used_are_told_once(engine: Engine, job: Job):
    result = run(engine, job, "a cat <lora:a:1> <lora:b:1> <lora:a:0.1> <lora:gone:1>")
    assert result.extra == {"Lora hashes": ("a", "b")}
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("tag", "warning"),
    [
        ("<lora:broken:1>", "lora not used: broken.safetensors: not a whole safetensors file"),
        ("<lora:nan:1>", "lora not used: nan.safetensors: .* values that are no numbers"),
        ("<lora:sdxl:1>", "lora not used: sdxl fits no layer of this checkpoint"),
        ("<hypernet:hyper:1>", "hypernet not used: hyper.pt: not a PyTorch file"),
        ("wide", "embedding not used: wide has vectors of 768, this checkpoint's have 64"),
    ],
)
def test_what_cannot_be_used_is_told_and_the_picture_made_without_it(
    engine: Engine, job: Job, tag: str, warning: str
):
    plain = pixels(run(engine, job, "a cat"))
    for _ in range(2):  # told again when nothing has to be done
        result = run(engine, job, f"a cat {tag}")
        assert len(result.warnings) == 1
        assert re.search(warning, result.warnings[0])
    if tag.startswith("<"):
        assert np.array_equal(pixels(run(engine, job, f"a cat{tag}")), plain)
    assert np.array_equal(pixels(run(engine, job, "a cat")), plain)


def test_layers_that_do_not_fit_are_counted(engine: Engine, job: Job):
    result = run(engine, job, "a cat <lora:odd:1>")
    assert result.warnings == ("lora odd: 1 of its 2 layers do not fit",)


def test_strict_job_fails_and_leaves_the_checkpoint_as_it_was(engine: Engine, job: Job):
    plain = pixels(run(engine, job, "a cat"))
    strict = replace(job.networks, is_strict=True)
    with pytest.raises(ModelUnusable, match="lora not used"):
        run(engine, job, "a cat <lora:a:1> <lora:nan:1>", networks=strict)
    assert np.array_equal(pixels(run(engine, job, "a cat")), plain)


def test_embedding_that_a_lora_brings_along_is_known_while_it_is_active(engine: Engine, job: Job):
    result = run(engine, job, "tinyti <lora:bundle:1>")
    assert result.extra["TI hashes"] == "tinyti: bundle"
    assert "TI hashes" not in run(engine, job, "tinyti").extra


def test_merged_checkpoint_that_moves_draws_the_same(engine: Engine, job: Job):
    first = pixels(run(engine, job, "a cat <lora:b:1>"))
    with engine.models.checkpoint(job.checkpoint) as loaded:
        loaded.move(CPU)
    assert np.array_equal(pixels(run(engine, job, "a cat <lora:b:1>")), first)
    plain = run(engine, replace(job, prompts=("a cat",)), "a cat")
    engine.clear()
    assert np.array_equal(pixels(run(engine, job, "a cat")), pixels(plain))


def test_size_of_a_checkpoint_counts_the_originals_that_are_kept(engine: Engine, job: Job):
    run(engine, job, "a cat")
    with engine.models.checkpoint(job.checkpoint) as loaded:
        before = loaded.size_bytes
    run(engine, job, "a cat <lora:a:1>")
    with engine.models.checkpoint(job.checkpoint) as loaded:
        assert loaded.size_bytes == before + 32 * 32 * 4
