from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdapi.engine.networks.hypernetwork import AttachedHypernetworks, read_hypernetwork
from sdapi.errors import ModelUnusable
from tests.models.networks import Tiny

CONTEXT = 64


def network(*widths: int) -> nn.Sequential:
    torch.manual_seed(sum(widths))
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


def state(model: nn.Sequential, steps: list[int] | None = None) -> dict[str, Tensor]:
    """Weights under the numbers that layers have among activations and norms."""
    numbers = steps or list(range(len(model)))
    return {
        f"linear.{number}.{leaf}": tensor
        for number, layer in zip(numbers, model, strict=True)
        for leaf, tensor in layer.state_dict().items()
    }


def write(path: Path, **content: Any) -> Path:
    torch.save(
        {int(k[1:]) if k[0] == "w" and k[1:].isdigit() else k: v for k, v in content.items()}, path
    )
    return path


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Path, nn.Sequential, nn.Sequential]:
    """A file for cross attention without activations, and its networks."""
    keys, values = network(CONTEXT, 2 * CONTEXT, CONTEXT), network(CONTEXT, 128, 64)
    path = write(
        tmp_path / "h.pt",
        w64=[state(keys), state(values)],
        layer_structure=[1, 2, 1],
        activation_func="linear",
    )
    return path, keys, values


def run(tiny: Tiny) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 4, 16, 16, generator=generator)
    context = torch.randn(1, 77, CONTEXT, generator=generator)
    with torch.inference_mode():
        return tiny.components.unet(x, 500, encoder_hidden_states=context).sample


def test_keys_and_values_of_every_attention_are_changed_and_changed_back(
    sd1: Tiny, plain: tuple[Path, nn.Sequential, nn.Sequential]
):
    path, keys, values = plain
    before = run(sd1)
    attached = AttachedHypernetworks(sd1.components.unet)
    count = attached.attach([(0.5, read_hypernetwork(path, torch.float32))])
    changed = run(sd1)
    attached.detach()
    after = run(sd1)
    modules = [m for m in sd1.components.unet.modules() if hasattr(m, "to_k")]
    fitting = [m for m in modules if m.to_k.in_features == CONTEXT]
    assert count == 2 * len(fitting) > len(modules)
    assert not torch.allclose(changed, before)
    assert torch.equal(after, before)
    assert not any(m.to_k._forward_pre_hooks for m in modules)

    def by_hand(layer: nn.Linear, net: nn.Sequential, x: Tensor) -> Tensor:
        return nn.functional.linear(x + 0.5 * net(x), layer.weight, layer.bias)

    originals = {m: (m.to_k.forward, m.to_v.forward) for m in fitting}
    try:
        for m in fitting:
            k, v = m.to_k, m.to_v
            k.forward = lambda x, k=k: by_hand(k, keys, x)
            v.forward = lambda x, v=v: by_hand(v, values, x)
        assert torch.allclose(run(sd1), changed, atol=1e-5)
    finally:
        for m in originals:
            del m.to_k.forward, m.to_v.forward


def test_several_take_what_the_one_before_gives(
    sd1: Tiny, plain: tuple[Path, nn.Sequential, nn.Sequential]
):
    path, keys, _ = plain
    layer = next(
        m.to_k
        for m in sd1.components.unet.modules()
        if hasattr(m, "to_k") and m.to_k.in_features == CONTEXT
    )
    attached = AttachedHypernetworks(sd1.components.unet)
    loaded = read_hypernetwork(path, torch.float32)
    attached.attach([(0.5, loaded), (-1.0, loaded)])
    try:
        x = torch.randn(1, 3, CONTEXT)
        first = x + 0.5 * keys(x)
        expected = layer.weight @ (first - keys(first)).mT
        assert torch.allclose(layer(x), expected.mT, atol=1e-5)
    finally:
        attached.detach()


@pytest.mark.parametrize(
    ("settings", "build", "numbers"),
    [
        ({"activation_func": "relu"}, [nn.ReLU, nn.ReLU], [0, 2]),
        ({"activation_func": "swish", "activate_output": False}, [nn.Hardswish, None], [0, 2]),
        ({"activation_func": "softplus"}, None, None),
        ({"activation_func": "mish"}, [nn.Mish, nn.Mish], [0, 2]),
        ({"activation_func": "relu", "use_dropout": True}, [nn.ReLU, nn.ReLU], [0, 3]),
    ],
)
def test_activations_are_where_the_file_says(
    tmp_path: Path, settings: dict[str, Any], build: list[Any] | None, numbers: list[int] | None
):
    linear = network(64, 128, 64)
    numbers = numbers or [0, 2]
    content = {"w64": [state(linear, numbers)] * 2, "layer_structure": [1, 2, 1]}
    loaded = read_hypernetwork(write(tmp_path / "h.pt", **content, **settings), torch.float32)
    x = torch.randn(5, 64)
    expected = x
    for layer, activation in zip(linear, build or [nn.Softplus, nn.Softplus], strict=True):
        expected = layer(expected)
        expected = activation()(expected) if activation else expected
    assert torch.allclose(loaded.pairs[64][0](x), expected, atol=1e-6)


def test_layer_norm_follows_the_activation(tmp_path: Path):
    linear, norm = network(64, 64), nn.LayerNorm(64)
    nn.init.normal_(norm.weight)
    weights = state(linear) | {f"linear.1.{k}": v for k, v in norm.state_dict().items()}
    path = write(tmp_path / "h.pt", w64=[weights] * 2, layer_structure=[1, 1], is_layer_norm=True)
    x = torch.randn(5, 64)
    loaded = read_hypernetwork(path, torch.float32)
    assert torch.allclose(loaded.pairs[64][1](x), norm(linear[0](x)), atol=1e-6)


def test_oldest_files_number_layers_in_their_names(tmp_path: Path):
    linear = network(64, 128, 64)
    old = {
        f"linear{number + 1}.{leaf}": tensor
        for number, layer in enumerate(linear)
        for leaf, tensor in layer.state_dict().items()
    }
    loaded = read_hypernetwork(write(tmp_path / "h.pt", w64=[old, old]), torch.float32)
    x = torch.randn(5, 64)
    assert torch.allclose(loaded.pairs[64][0](x), linear(x), atol=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"w64": [{}, {}]},
        {"w64": 5},
        {"w64": [{"linear.0.weight": torch.zeros(3, 3)}] * 2},
        {"w64": [state(network(64, 128, 64))] * 2, "activation_func": "nonsense"},
        {"w64": [state(network(64, 128, 64))] * 2, "layer_structure": [1, 1e9, 1]},
        {
            "w64": [{k: v * torch.nan for k, v in state(network(64, 128, 64)).items()}] * 2,
        },
    ],
    ids=["empty", "no weights", "a number", "shape", "activation", "huge", "nan"],
)
def test_what_is_no_hypernetwork_is_refused_by_name(tmp_path: Path, content: dict[str, Any]):
    path = write(tmp_path / "bad.pt", **content)
    with pytest.raises(ModelUnusable, match=r"^bad\.pt: "):
        read_hypernetwork(path, torch.float32)
