"""LaMa with random weights of the published layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spandrel.architectures.LaMa import LaMa

from sdapi.engine.control.annotators.annotators import Annotators
from sdapi.errors import ModelUnusable
from sdapi.extensions.controlnet.preprocessors import find

FILE = "ControlNetLama.pth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as it is published: what draws, beside what the training had."""
    torch.manual_seed(0)
    with torch.random.fork_rng():
        network = LaMa(in_nc=4, out_nc=3)
    state = {
        key.replace("model.model", "generator.model", 1): tensor
        for key, tensor in network.state_dict().items()
    }
    folder = tmp_path_factory.mktemp("lama")
    state["discriminator.model0.0.weight"] = torch.zeros(1)
    torch.save({"state_dict": state}, folder / FILE)
    return folder


def test_what_is_masked_is_drawn_from_what_is_around_it(folder: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    picture[:, :, 3] = 0
    picture[20:40, 20:50, 3] = 255
    other = picture.copy()
    other[20:40, 20:50, :3] = 7
    annotators = Annotators(folder)

    filled, again = (
        find("inpaint_only+lama").run(each, annotators=annotators).pixels
        for each in (picture, other)
    )

    assert filled.shape == picture.shape
    kept = picture[:, :, 3] == 0
    assert np.array_equal(filled[kept], picture[kept])
    assert not np.array_equal(filled[~kept], picture[~kept])
    # Sharp edges aside, what was behind the mask makes no difference.
    assert np.abs(filled[25:35, 25:45].astype(int) - again[25:35, 25:45]).mean() < 2
    assert np.array_equal(filled[:, :, 3], picture[:, :, 3])


def test_file_that_is_none_of_lama_is_named(tmp_path: Path) -> None:
    torch.save({"generator.weight": torch.zeros(1)}, tmp_path / FILE)

    with pytest.raises(ModelUnusable, match=r"ControlNetLama\.pth: it holds no weights of LaMa"):
        find("inpaint_only+lama").run(
            np.zeros((8, 8, 4), np.uint8), annotators=Annotators(tmp_path)
        )
