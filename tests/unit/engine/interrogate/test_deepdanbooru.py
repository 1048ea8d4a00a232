"""DeepDanbooru from a file of the published layout, with few channels and random weights."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from sdapi.engine.interrogate.deepdanbooru import TagModel, TagNetwork, TagOptions, told_tags
from sdapi.errors import ModelUnusable

TAGS = ["rating:safe", "long_hair", "smile", "cat_(animal)"]
PICTURE = Image.new("RGB", (64, 32), "red")
#: convolutions of the published file: number -> outputs, inputs, size, stride
PUBLISHED = {
    0: (64, 3, 7, 2),
    1: (256, 64, 1, 1),
    2: (64, 64, 1, 1),
    3: (64, 64, 3, 1),
    11: (512, 256, 1, 2),
    13: (128, 128, 3, 2),
    36: (1024, 512, 1, 2),
    97: (256, 1024, 1, 1),
    98: (256, 256, 3, 2),
    100: (1024, 1024, 1, 2),
    158: (2048, 1024, 1, 2),
    168: (4096, 2048, 1, 2),
    170: (1024, 1024, 3, 2),
    177: (4096, 1024, 1, 1),
    178: (9176, 4096, 1, 1),
}


def save(path: Path, **changes: object) -> Path:
    """A model file; None leaves an entry out."""
    torch.manual_seed(0)
    entries: dict[str, object] = {"tags": TAGS, **TagNetwork(4, len(TAGS)).state_dict()}
    entries |= changes
    torch.save({key: value for key, value in entries.items() if value is not None}, path)
    return path


def test_its_convolutions_are_those_of_the_published_file():
    with torch.device("meta"):
        weights = TagNetwork(64, 9176)
    assert len(weights.state_dict()) == 2 * 179 - 1
    for number, (outputs, inputs, size, stride) in PUBLISHED.items():
        conv = weights.get_submodule(f"n_Conv_{number}")
        assert isinstance(conv, torch.nn.Conv2d)
        assert tuple(conv.weight.shape) == (outputs, inputs, size, size), number
        assert conv.stride == (stride, stride), number


def test_layers_follow_each_other_as_in_the_published_network():
    """The first stage written out: pads, shortcut, order."""
    network, relu = TagNetwork(4, 3), torch.relu
    convs = {i: network.get_submodule(f"n_Conv_{i}") for i in range(14)}
    pad = torch.nn.functional.pad
    pixels = torch.rand(1, 3, 256, 256)
    x = relu(convs[0](pad(pixels, (2, 3, 2, 3))))
    x = torch.nn.functional.max_pool2d(pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)
    x = relu(convs[4](relu(convs[3](pad(relu(convs[2](x)), (1, 1, 1, 1))))) + convs[1](x))
    x = relu(convs[7](relu(convs[6](pad(relu(convs[5](x)), (1, 1, 1, 1))))) + x)
    x = relu(convs[10](relu(convs[9](pad(relu(convs[8](x)), (1, 1, 1, 1))))) + x)
    seen: list[torch.Tensor] = []
    convs[11].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(pixels)
    assert torch.allclose(seen[0], x, atol=1e-6)


def test_a_file_of_that_layout_tells_tags(tmp_path: Path):
    model = TagModel.load(save(tmp_path / "model.pt"))
    told = model.describe(PICTURE, TagOptions(threshold=0.0))
    assert told == r"cat \(animal\), long hair, smile"
    assert model.describe(PICTURE, TagOptions(threshold=1.1)) == ""
    assert model.describe(PICTURE, TagOptions(threshold=0.0)) == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (TagOptions(), r"cat \(animal\), long hair"),
        (TagOptions(threshold=0.95), ""),
        (TagOptions(sorts_by_name=False), r"long hair, cat \(animal\)"),
        (TagOptions(uses_spaces=False, escapes=False), "cat_(animal), long_hair"),
        (TagOptions(filtered=frozenset({"long_hair"})), r"cat \(animal\)"),
        (TagOptions(shows_ranks=True), r"(cat \(animal\):0.600), (long hair:0.900)"),
    ],
)
def test_tags_are_told_as_the_options_say(options: TagOptions, told: str):
    shares = {"rating:safe": 0.99, "long_hair": 0.9, "smile": 0.1, "cat_(animal)": 0.6}
    assert told_tags(shares, options) == told


@pytest.mark.parametrize(
    "changes",
    [
        {"tags": None},
        {"tags": ["one"]},
        {"tags": [1, 2, 3, 4]},
        {"n_Conv_0.weight": None},
        {"n_Conv_100.weight": None},
        {"n_Conv_100.weight": torch.zeros(1)},
        {"n_Conv_200.weight": torch.zeros(1)},
    ],
)
def test_another_file_is_refused_by_name(tmp_path: Path, changes: dict[str, object]):
    path = save(tmp_path / "model.pt", **changes)
    with pytest.raises(ModelUnusable, match=r"model\.pt"):
        TagModel.load(path)


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"none")
    with pytest.raises(ModelUnusable, match=r"model\.pt"):
        TagModel.load(path)
