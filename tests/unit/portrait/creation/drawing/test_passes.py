"""What a drawn picture's warnings say of the LoRAs without which it is somebody else's."""

from pathlib import Path

import numpy as np
import pytest

from sdapi.engine.jobs.job import ModelFile
from sdapi.engine.jobs.monitor import Monitor
from sdapi.engine.networks.selection import NetworkFiles
from sdapi.portrait.creation.drawing.passes import Drawn
from tests.engines import cpu_engine, golden_file, tiny_job
from tests.portraits.portrait_models import write_lora

#: of the layer in the tiny checkpoint
WIDTH = 64


@pytest.mark.parametrize(("width", "is_lost"), [(WIDTH, False), (2 * WIDTH, True)])
def test_a_lora_of_another_checkpoints_shapes_is_lost(
    golden: Path, tmp_path: Path, width: int, is_lost: bool
):
    file = tmp_path / "ann.safetensors"
    write_lora(file, width=width)
    networks = NetworkFiles({"ann": ModelFile.of(file)}, {}, ())
    job = tiny_job(
        golden_file(golden, "tinyA"), prompts=("a face <lora:ann:0.9>",), networks=networks
    )
    result = cpu_engine().run(job, Monitor())
    drawn = Drawn(np.asarray(result.images[0].image), result.warnings)
    assert (drawn.lost(("ann",)) is not None) == is_lost
    assert drawn.lost(("bob",)) is None
