"""IP-Adapters of tiny random weights on the golden checkpoint."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil

from sdapi.engine.control.control_stages import ControlStages
from sdapi.engine.control.ip_adapter.adapter import LoadedIPAdapter, load_ip_adapter
from sdapi.engine.control.ip_adapter.image_encoder import load_image_encoder, prepared
from sdapi.engine.control.models.base_model import BaseModel
from sdapi.engine.control.models.control_file import read_control_file
from sdapi.engine.control.unit import ControlUnit, Pixels
from sdapi.engine.jobs.job import ModelFile
from sdapi.engine.jobs.stages import UNetCall
from sdapi.engine.models.device_models import Models
from sdapi.errors import BadRequest, ModelUnusable
from tests.models.ip_adapters import (
    POOLED,
    SIDE,
    State,
    full_projection,
    ip_adapter,
    plain_projection,
    plus_projection,
    save_image_encoder,
    save_ip_adapter,
)

PROJECTIONS = {"plain": plain_projection, "full": full_projection, "plus": plus_projection}
#: how far ours may be from diffusers' own attention processors
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def unet(models: Models, checkpoint: ModelFile) -> Any:
    with models.checkpoint(checkpoint) as loaded:
        return loaded.components.unet


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, unet: Any) -> dict[str, ModelFile]:
    """An adapter of each kind, and an encoder."""
    folder = tmp_path_factory.mktemp("adapters")
    made = {
        name: ModelFile.of(save_ip_adapter(ip_adapter(unet, build), folder / f"{name}.safetensors"))
        for name, build in PROJECTIONS.items()
    }
    made["encoder"] = ModelFile.of(save_image_encoder(folder / "encoder.safetensors"))
    return made


def picture(seed: int = 0, size: tuple[int, int] = (40, 56)) -> Pixels:
    coarse = np.random.RandomState(seed).randint(0, 255, (4, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size))


def unit_with(files: dict[str, ModelFile], kind: str = "plus", **changes: Any) -> ControlUnit:
    unit = ControlUnit(
        label="unit 0",
        module="ip-adapter_clip_sd15",
        model=files[kind],
        hint=picture(),
        pictures=(picture(),),
        encoder=files["encoder"],
    )
    return replace(unit, **changes)


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_output_is_that_of_diffusers_own_attention_processors(
    unet: Any, models: Models, checkpoint: ModelFile, files: dict[str, ModelFile], kind: str
) -> None:
    peer = copy.deepcopy(unet)
    peer._load_ip_adapter_weights([ip_adapter(unet, PROJECTIONS[kind])], low_cpu_mem_usage=False)
    encoder = load_image_encoder(files["encoder"], torch.float32)
    seen, blank = encoder.embed([picture()]), encoder.blank()
    pairs = (
        (seen.pooled, torch.zeros_like(seen.pooled))
        if kind == "plain"
        else (seen.patches, blank.patches)
    )
    embeds = torch.cat(pairs)[:, None]
    for processor in peer.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.8]
    torch.manual_seed(1)
    x, cross = torch.randn(2, 4, 8, 8), torch.randn(2, 77, unet.config.cross_attention_dim)
    with torch.inference_mode():
        expected = peer(
            x, 7, encoder_hidden_states=cross, added_cond_kwargs={"image_embeds": [embeds]}
        ).sample
        plain = unet(x, 7, encoder_hidden_states=cross).sample
        with models.checkpoint(checkpoint) as loaded:
            sampling: Any = SimpleNamespace(components=loaded.components, models=models)
            content = read_control_file(files[kind].path)
            adapter = load_ip_adapter(content, BaseModel.of(sampling))
            control = adapter.control(unit_with(files, kind, weight=0.8), sampling)
            rows: Any = [SimpleNamespace(is_uncond=False), SimpleNamespace(is_uncond=True)]
            call = UNetCall(x, torch.tensor([7, 7]), 7, rows, loaded.components)
            control.before(call)
            made = unet(x, 7, encoder_hidden_states=cross).sample
            control.after(call, made)
            idle = unet(x, 7, encoder_hidden_states=cross).sample
            control.close()

    assert difference(made, expected) < TOLERANCE
    assert difference(made, plain) > 100 * TOLERANCE
    assert torch.equal(idle, plain)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_unit_changes_the_picture_and_leaves_nothing_behind(
    draw: Any, unet: Any, files: dict[str, ModelFile], kind: str
) -> None:
    weights = {key: value.clone() for key, value in unet.state_dict().items()}
    before = draw()[0]

    steered = draw(unit_with(files, kind))[0]
    after = draw()[0]

    assert difference(steered, before) > 0
    assert torch.equal(after, before)
    assert all(torch.equal(value, weights[key]) for key, value in unet.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


@pytest.mark.parametrize("changes", [{"weight": 0.0}, {"advanced": (0.0,) * 16}])
def test_weight_0_equals_no_unit(draw: Any, files: dict[str, ModelFile], changes: Any) -> None:
    assert torch.equal(draw(unit_with(files, **changes))[0], draw()[0])


def test_even_weights_of_places_equal_one_weight(draw: Any, files: dict[str, ModelFile]) -> None:
    even = draw(unit_with(files, advanced=(0.6,) * 16))[0]

    assert torch.equal(even, draw(unit_with(files, weight=0.6))[0])


def test_each_place_has_a_weight_of_its_own(draw: Any, files: dict[str, ModelFile]) -> None:
    """Down, then the middle, then up: with one place at work, pictures differ."""
    places = [tuple(float(i == place) for i in range(16)) for place in (0, 5, 6, 7, 15)]

    made = [draw(unit_with(files, advanced=each))[0] for each in places]

    plain = draw()[0]
    assert all(difference(each, plain) > 0 for each in made)
    assert len({each.numpy().tobytes() for each in made}) == len(places)


def test_too_few_weights_of_places_are_refused(draw: Any, files: dict[str, ModelFile]) -> None:
    with pytest.raises(BadRequest, match="advanced_weighting has 13 weights"):
        draw(unit_with(files, advanced=(1.0,) * 13))


def test_rows_of_a_batch_are_independent(draw: Any, files: dict[str, ModelFile]) -> None:
    both = {
        "prompts": ("a cat", "a dog"),
        "negative_prompts": ("", ""),
        "seeds": (7, 8),
        "subseeds": (0, 0),
        "batch_size": 2,
    }
    together = draw(unit_with(files), **both)
    alone = draw(unit_with(files), prompts=("a dog",), seeds=(8,))

    assert difference(together[1], alone[0]) <= 1


def test_window_of_half_the_steps_equals_full_control_of_those(
    draw: Any, files: dict[str, ModelFile]
) -> None:
    units = [unit_with(files, end=end) for end in (0.49, 1.0)]
    seen: list[list[Tensor]] = []

    class Watching(ControlStages):
        def on_step(self, index: int, denoised: Tensor | None) -> None:
            super().on_step(index, denoised)
            assert denoised is not None
            steps.append(denoised.clone())

    for unit in units:
        steps: list[Tensor] = []
        draw(steps=6, stages=(Watching([unit]),))
        seen.append(steps)

    half, full = seen
    assert all(torch.equal(a, b) for a, b in zip(half[:3], full[:3], strict=True))
    assert not torch.equal(half[-1], full[-1])


def test_region_keeps_the_unit_out_of_the_rest(draw: Any, files: dict[str, ModelFile]) -> None:
    nowhere, everywhere = np.zeros((64, 64), np.float32), np.ones((64, 64), np.float32)

    assert torch.equal(draw(unit_with(files, region=nowhere))[0], draw()[0])
    whole = draw(unit_with(files, region=everywhere))[0]
    assert difference(whole, draw(unit_with(files))[0]) <= 1


def test_left_half_of_a_region_acts_there_most(draw: Any, files: dict[str, ModelFile]) -> None:
    left = np.zeros((128, 128), np.float32)
    left[:, :64] = 1
    size = {"width": 128, "height": 128, "steps": 1}

    plain, made = draw(**size)[0], draw(unit_with(files, region=left), **size)[0]

    changed = (made - plain).abs().mean(dim=(0, 2))
    assert changed[:64].mean() > changed[64:].mean()


def test_same_picture_twice_equals_it_once(draw: Any, files: dict[str, ModelFile]) -> None:
    twice = draw(unit_with(files, pictures=(picture(), picture())))[0]

    assert difference(twice, draw(unit_with(files))[0]) <= 1


def test_two_pictures_count_both(draw: Any, files: dict[str, ModelFile]) -> None:
    one, two = picture(0), picture(5)

    made = [draw(unit_with(files, pictures=each))[0] for each in ((one,), (two,), (one, two))]

    assert difference(made[0], made[1]) > 0
    assert difference(made[2], made[0]) > 0
    assert difference(made[2], made[1]) > 0


def test_order_of_units_does_not_matter(draw: Any, files: dict[str, ModelFile]) -> None:
    first, second = unit_with(files, "plain"), unit_with(files, "plus", pictures=(picture(5),))

    assert difference(draw(first, second)[0], draw(second, first)[0]) <= 1


def test_nested_pickle_holds_the_same_adapter(
    draw: Any, unet: Any, files: dict[str, ModelFile], tmp_path: Path
) -> None:
    path = save_ip_adapter(ip_adapter(unet, plus_projection), tmp_path / "nested.bin")

    made = draw(unit_with(files, model=ModelFile.of(path)))[0]

    assert torch.equal(made, draw(unit_with(files))[0])


def test_adapter_of_another_checkpoint_is_refused(
    draw: Any, unet: Any, files: dict[str, ModelFile], tmp_path: Path
) -> None:
    parts = ip_adapter(unet, plus_projection)
    parts["ip_adapter"] = {k: v for k, v in parts["ip_adapter"].items() if not k.startswith("1.")}
    path = save_ip_adapter(parts, tmp_path / "short.safetensors")

    with pytest.raises(ModelUnusable, match="15 layers for another kind of checkpoint"):
        draw(unit_with(files, model=ModelFile.of(path)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda parts: parts["ip_adapter"].pop("1.to_k_ip.weight"), "lack keys or values"),
        (lambda parts: parts["ip_adapter"].update(odd=torch.zeros(1)), "nothing is known"),
        (lambda parts: parts["image_proj"].pop("norm_out.bias"), "lacks 1 weights"),
        (lambda parts: parts["image_proj"].update(odd=torch.zeros(1)), "1 weights too many"),
    ],
)
def test_weights_that_are_missing_or_unknown_are_refused(
    draw: Any,
    unet: Any,
    files: dict[str, ModelFile],
    tmp_path: Path,
    change: Callable[[dict[str, State]], Any],
    reason: str,
) -> None:
    parts = ip_adapter(unet, plus_projection)
    change(parts)
    path = save_ip_adapter(parts, tmp_path / "broken.safetensors")

    with pytest.raises(ModelUnusable, match=reason):
        draw(unit_with(files, model=ModelFile.of(path)))


def test_encoder_of_another_width_is_refused(
    draw: Any, files: dict[str, ModelFile], tmp_path: Path
) -> None:
    encoder = ModelFile.of(save_image_encoder(tmp_path / "wide.safetensors", pooled=POOLED + 8))

    with pytest.raises(ModelUnusable, match=f"embeddings of {POOLED} numbers"):
        draw(unit_with(files, "plain", encoder=encoder))


def test_file_that_is_no_encoder_is_refused(draw: Any, files: dict[str, ModelFile]) -> None:
    with pytest.raises(ModelUnusable, match="no CLIP image encoder"):
        draw(unit_with(files, encoder=files["plain"]))


@pytest.mark.parametrize("size", [(28, 28), (40, 56), (200, 31), (1, 1), (5, 90)])
def test_pictures_are_prepared_as_transformers_does(size: tuple[int, int]) -> None:
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    pixels = picture(3, size)
    expected = processor(Image.fromarray(pixels), return_tensors="pt").pixel_values

    assert difference(prepared(pixels, SIDE), expected) < TOLERANCE


def test_mask_hides_what_it_leaves_out() -> None:
    pixels, mask = picture(3, (28, 28)), np.zeros((28, 28), np.uint8)
    mask[:, :14] = 255

    masked = prepared(np.dstack([pixels, mask]), SIDE)

    assert torch.equal(masked[..., :14], prepared(pixels, SIDE)[..., :14])
    assert masked[..., 14:].abs().max() == 0


def test_loaded_adapter_moves_and_tells_its_size(
    models: Models, checkpoint: ModelFile, files: dict[str, ModelFile]
) -> None:
    with models.checkpoint(checkpoint) as loaded:
        base = BaseModel.of(SimpleNamespace(components=loaded.components, models=models))  # pyright: ignore
        adapter = load_ip_adapter(read_control_file(files["plain"].path), base)

    assert isinstance(adapter, LoadedIPAdapter)
    assert adapter.size_bytes == files["plain"].path.stat().st_size - _header_bytes(
        files["plain"].path
    )
    adapter.move(torch.device("cpu"))


def _header_bytes(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize(
    "missing",
    ["image_proj.norm.weight", "image_proj.proj_in.weight", "image_proj.layers.0.0.to_q.weight"],
)
def test_a_projection_without_one_of_its_weights_is_named(
    unet: Any, tmp_path: Path, missing: str
) -> None:
    build = plain_projection if missing.endswith("norm.weight") else plus_projection
    path = save_ip_adapter(ip_adapter(unet, build), tmp_path / "torn.safetensors")
    content = read_control_file(path)
    torn = replace(content, weights={k: v for k, v in content.weights.items() if k != missing})

    with pytest.raises(ModelUnusable, match=r"torn: .*image_proj"):
        load_ip_adapter(torn, BaseModel.of_unet(unet, torch.float32))


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
def test_a_strip_is_looked_at_in_little_memory(size: tuple[int, int]) -> None:
    # Whole, its shorter side at 224 pixels would make the longer one 4480000.
    strip = np.full((size[1], size[0], 3), 90, np.uint8)

    assert prepared(strip, 224).shape == (1, 3, 224, 224)
