"""Every spelling of a layer's name finds that layer; diffusers' own loader agrees."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from torch import Tensor

from sdapi.engine.networks.key_forms import split_key
from sdapi.engine.networks.merge import MergedWeights
from tests.models.networks import (
    RANK,
    Tiny,
    kohya_lora,
    layers_of,
    loaded,
    low_rank,
    same,
    weights_of,
    write_network,
)

#: gives the names of `down`, `up` and `alpha` of a module; None where the form has no such layer
Form = Callable[[Tiny, str], tuple[str, str, str] | None]


def kohya(tiny: Tiny, path: str) -> tuple[str, str, str]:
    name = "lora_unet_" + path.replace(".", "_")
    return f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"


def original(tiny: Tiny, path: str) -> tuple[str, str, str]:
    name = "lora_unet_" + tiny.original_names[path].replace(".", "_")
    return f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"


def peft(tiny: Tiny, path: str) -> tuple[str, str, str]:
    return f"unet.{path}.lora_A.weight", f"unet.{path}.lora_B.weight", f"unet.{path}.alpha"


def peft_adapter(tiny: Tiny, path: str) -> tuple[str, str, str]:
    name = f"base_model.model.unet.{path}"
    return f"{name}.lora_A.default.weight", f"{name}.lora_B.default.weight", f"{name}.alpha"


def diffusers(tiny: Tiny, path: str) -> tuple[str, str, str]:
    return f"unet.{path}.lora.down.weight", f"unet.{path}.lora.up.weight", f"unet.{path}.alpha"


def processor(tiny: Tiny, path: str) -> tuple[str, str, str] | None:
    attention, _, layer = path.partition(".to_")
    if not layer:
        return None
    name = f"{attention}.processor.to_{layer.removesuffix('.0')}_lora"
    return f"unet.{name}.down.weight", f"unet.{name}.up.weight", f"unet.{path}.alpha"


def bare_processor(tiny: Tiny, path: str) -> tuple[str, str, str] | None:
    names = processor(tiny, path)
    return None if names is None else tuple(n.removeprefix("unet.") for n in names)  # type: ignore[return-value]


FORMS: list[Form] = [
    kohya,
    original,
    peft,
    peft_adapter,
    diffusers,
    processor,
    bare_processor,
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_form_reaches_every_layer_of_the_unet(
    request: pytest.FixtureRequest, tmp_path: Path, family: str, form: Form
):
    tiny: Tiny = request.getfixturevalue(family)
    generator = torch.Generator().manual_seed(1)
    tensors: dict[str, Tensor] = {}
    expected = before = weights_of(tiny.components)
    expected = dict(before)
    for path, module in layers_of(tiny.components.unet).items():
        names = form(tiny, path)
        if names is None:
            continue
        down, up = low_rank(module.weight, generator)
        tensors |= {names[0]: down, names[1]: up, names[2]: torch.tensor(6.0)}
        change = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape)
        key = f"unet.{path}.weight"
        expected[key] = before[key] + change * (6.0 / RANK)
    weights = MergedWeights(tiny.components)
    try:
        report = weights.merge([loaded(write_network(tmp_path / "net.safetensors", tensors))])
        after = weights_of(tiny.components)
    finally:
        weights.restore()
    assert (report.matched["net"], report.misfits["net"]) == (len(tensors) // 3, 0)
    assert all(torch.allclose(after[key], expected[key], atol=1e-6) for key in expected)
    assert same(weights_of(tiny.components), before)


TEXT_FORMS = {
    "kohya": ("lora_{kohya}_text_model_{under}", "lora_down", "lora_up"),
    "peft": ("{diffusers}.text_model.{dots}", "lora_A", "lora_B"),
    "peft_short": ("{diffusers}.{dots}", "lora_A", "lora_B"),
    "diffusers": (
        "{diffusers}.text_model.{dots}",
        "lora_linear_layer.down",
        "lora_linear_layer.up",
    ),
}


@pytest.mark.parametrize("form", TEXT_FORMS)
@pytest.mark.parametrize(
    ("family", "labels"),
    [("sd1", ("te",)), ("sd1", ("te1",)), ("sd2", ("te",)), ("sdxl", ("te1", "te2"))],
)
def test_form_reaches_every_layer_of_the_text_encoders(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    family: str,
    labels: tuple[str, ...],
    form: str,
):
    tiny: Tiny = request.getfixturevalue(family)
    generator = torch.Generator().manual_seed(2)
    name, down_part, up_part = TEXT_FORMS[form]
    tensors: dict[str, Tensor] = {}
    before = weights_of(tiny.components)
    expected = dict(before)
    for number, (label, encoder) in enumerate(
        zip(labels, tiny.components.text_encoders, strict=True)
    ):
        for path, module in layers_of(encoder.model).items():
            down, up = low_rank(module.weight, generator)
            filled = name.format(
                kohya=label,
                diffusers=f"text_encoder{'_2' if number else ''}",
                dots=path,
                under=path.replace(".", "_"),
            )
            tensors |= {f"{filled}.{down_part}.weight": down, f"{filled}.{up_part}.weight": up}
            expected[f"te{number}.{path}.weight"] += up @ down * 0.5
    weights = MergedWeights(tiny.components)
    try:
        weights.merge([loaded(write_network(tmp_path / "net.safetensors", tensors), te=0.5)])
        after = weights_of(tiny.components)
    finally:
        weights.restore()
    assert all(torch.allclose(after[key], expected[key], atol=1e-6) for key in expected)


def fused(
    tiny: Tiny, tensors: dict[str, Tensor], alphas: dict[str, Any] | None
) -> dict[str, Tensor]:
    """What diffusers makes of a UNet's weights, by loading and fusing with peft."""
    unet = copy.deepcopy(tiny.components.unet)
    unet.load_lora_adapter(tensors, prefix="unet", network_alphas=alphas)
    unet.fuse_lora(lora_scale=1.0)
    return {
        f"unet.{key.replace('.base_layer', '')}": tensor
        for key, tensor in unet.state_dict().items()
        if ".lora_" not in key
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_kohya_file_is_merged_as_diffusers_does(
    request: pytest.FixtureRequest, tmp_path: Path, family: str
):
    tiny: Tiny = request.getfixturevalue(family)
    tensors = {
        key: tensor
        for key, tensor in kohya_lora(tiny, text=False).items()
        if "_attn" in key or "_ff_" in key
    }
    if family == "sdxl":
        names = {path.replace(".", "_"): path for path in layers_of(tiny.components.unet)}
        tensors = {
            original(tiny, names[key.removeprefix("lora_unet_").split(".")[0]])[0].split(".")[0]
            + "."
            + key.partition(".")[2]: tensor
            for key, tensor in tensors.items()
        }
    weights = MergedWeights(tiny.components)
    try:
        weights.merge([loaded(write_network(tmp_path / "net.safetensors", tensors))])
        after = weights_of(tiny.components)
    finally:
        weights.restore()
    theirs = dict(tensors)
    if family == "sdxl":
        theirs = _maybe_map_sgm_blocks_to_diffusers(theirs, tiny.components.unet.config)
    converted, alphas = _convert_non_diffusers_lora_to_diffusers(theirs)
    reference = fused(tiny, converted, alphas)
    changed = [key for key in reference if "attn" in key and key.endswith("to_q.weight")]
    assert changed
    assert all(torch.allclose(after[key], reference[key], atol=1e-5) for key in reference)


@pytest.mark.parametrize(
    ("key", "path", "part"),
    [
        (
            "oft_unet_input_blocks_1_1_proj_in.oft_blocks",
            "oft_unet_input_blocks_1_1_proj_in",
            "oft_blocks",
        ),
        ("lora_te2_text_model_x.lora_mid.weight", "lora_te2_text_model_x", "lora_mid.weight"),
        ("unet.a.b.lora_magnitude_vector.weight", "unet_a_b", "lora_magnitude_vector"),
        ("unet.a.b.lora_magnitude_vector", "unet_a_b", "lora_magnitude_vector"),
        ("unet.a.to_out.0.dora_scale", "unet_a_to_out_0", "dora_scale"),
        (
            "text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight",
            "text_encoder_text_model_encoder_layers_0_self_attn_out_proj",
            "lora_up.weight",
        ),
    ],
)
def test_key_is_split_into_path_and_part(key: str, path: str, part: str):
    assert split_key(key) == (path, part)


def test_oft_prefix_reaches_the_unet_under_both_spellings(sd1: Tiny, tmp_path: Path):
    path = "mid_block.attentions.0.proj_in"
    width = len(layers_of(sd1.components.unet)[path].weight)
    for name in (path, sd1.original_names[path]):
        key = f"oft_unet_{name.replace('.', '_')}.oft_blocks"
        tensors = {key: torch.zeros(2, width // 2, width // 2)}
        weights = MergedWeights(sd1.components)
        report = weights.merge([loaded(write_network(tmp_path / "net.safetensors", tensors))])
        weights.restore()
        assert (report.matched["net"], report.misfits["net"]) == (1, 0)
