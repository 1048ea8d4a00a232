"""Upscaler models with random weights, read as users' files are."""

from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image
from spandrel.architectures.ESRGAN import ESRGANArch
from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

from sdapi.engine.models.device_models import Models
from sdapi.engine.upscaling.image_model import ImageModel, load_image_model
from sdapi.engine.upscaling.upscale import upscale_with
from sdapi.engine.upscaling.upscaler import Filter, ModelUpscaler, Tiles
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import BadRequest, ModelUnusable
from tests.engines import cpu_models

CPU = torch.device("cpu")
NEVER = Event()


def write_esrgan(path: Path, scale: int = 4) -> ModelFile:
    """A small network of the real layout that brightens a picture as it enlarges it."""
    torch.manual_seed(0)
    network = RRDBNet(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=scale)
    with torch.no_grad():
        network.model[-1].bias.fill_(0.5)
    torch.save({"params_ema": network.state_dict()}, path)
    return ModelFile.of(path)


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    return write_esrgan(tmp_path / "tiny.pth")


@pytest.fixture
def model(file: ModelFile) -> ImageModel:
    return load_image_model(file, prefers_half=False)


@pytest.fixture
def models() -> Models:
    return cpu_models()


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def difference(one: Image.Image, other: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(one).astype(int) - np.asarray(other))


def test_architecture_and_factor_are_told_by_the_weights(model: ImageModel):
    assert isinstance(model.descriptor.architecture, ESRGANArch)
    assert model.descriptor.scale == 4
    assert model.run(noise(10, 7)).size == (40, 28)


def test_channels_reach_the_model_blue_first(model: ImageModel):
    picture = noise(9, 9)
    blue, green, red = (255 * c for c in model.descriptor(model_input(picture))[0])
    expected = torch.stack([red, green, blue], dim=-1).round().numpy()
    assert np.array_equal(np.asarray(model.run(picture)), expected.astype(np.uint8))


def model_input(picture: Image.Image) -> torch.Tensor:
    pixels = np.asarray(picture)[:, :, ::-1].copy()
    return (torch.from_numpy(pixels).float() / 255).permute(2, 0, 1).unsqueeze(0)


@pytest.mark.parametrize("averages", [False, True])
def test_tiles_that_overlap_enough_give_the_untiled_picture_inside(
    model: ImageModel, averages: bool
):
    picture = noise(60, 60)
    whole = model.upscale(picture, Tiles(), NEVER)
    tiled = model.upscale(picture, Tiles(40, 20, averages), NEVER)
    assert tiled.size == whole.size
    # seams see less of the picture than the network looks at; between them nothing differs
    assert np.mean(difference(tiled, whole)) < 1
    assert difference(tiled, whole)[:64, :64].max() <= 1


def test_tiles_larger_than_the_picture_are_the_picture_where_tiles_are_averaged(model: ImageModel):
    picture = noise(20, 20)
    averaged = model.upscale(picture, Tiles(192, 8, averages=True), NEVER)
    assert difference(averaged, model.run(picture)).max() == 0


@pytest.mark.parametrize("averages", [False, True])
def test_stopped_upscaler_returns_the_picture_as_it_was(model: ImageModel, averages: bool):
    stop = Event()
    stop.set()
    picture = noise(20, 20)
    assert difference(model.upscale(picture, Tiles(8, 2, averages), stop), picture).max() == 0


def test_result_that_is_too_large_is_refused_before_it_is_made(model: ImageModel):
    with pytest.raises(BadRequest, match=r"tiny\.pth would make 400 megapixels"):
        model.upscale(Image.new("L", (5000, 5000)), Tiles(), NEVER)


def test_upscaler_enlarges_to_whole_eights_and_comes_from_the_cache(
    models: Models, file: ModelFile
):
    upscale = upscale_with(models, ModelUpscaler("tiny", file), NEVER)
    assert upscale is not None
    assert upscale(noise(21, 17), 2.0).size == (40, 32)
    with models.image_model(file, prefers_half=True) as one:  # half is for GPUs
        assert one.descriptor.dtype == torch.float32
    with models.image_model(file, prefers_half=False) as other:
        assert one is other


def test_filter_named_none_is_no_upscaler(models: Models):
    assert upscale_with(models, Filter.NONE, NEVER) is None
    nearest = upscale_with(models, Filter.NEAREST, NEVER)
    assert nearest is not None
    assert set(np.unique(np.asarray(nearest(Image.new("L", (8, 8), 7), 3.0)))) == {7}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"params": {"weight": torch.zeros(2, 2)}}, "no upscaler or restorer of a known"),
        ({"params": {}}, "holds no tensors"),
    ],
)
def test_file_that_is_no_upscaler_is_named(tmp_path: Path, content: object, reason: str):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelUnusable, match=rf"^other\.pth: {reason}"):
        load_image_model(ModelFile.of(tmp_path / "other.pth"), prefers_half=False)


def test_weights_that_do_not_fit_together_are_named(golden: Path, tmp_path: Path, file: ModelFile):
    state = torch.load(file.path, weights_only=True)["params_ema"]
    state["model.1.sub.0.RDB1.conv1.0.weight"] = torch.zeros(4, 8, 3, 3)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ModelUnusable, match=r"^odd\.pth: its weights do not fit together"):
        load_image_model(ModelFile.of(tmp_path / "odd.pth"), prefers_half=False)
