from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from sdapi.portrait.training.trying.merging import merge_loras
from sdapi.services.catalog.model_files.safetensors_header import read_metadata, sha256_of_tensors


def lora(path: Path, up: float, alpha: float, **metadata: str) -> Path:
    tensors = {
        "a.lora_up.weight": np.full((4, 2), up, np.float16),
        "a.lora_down.weight": np.arange(6, dtype=np.float16).reshape(2, 3) * np.float16(up),
        "a.alpha": np.array(alpha, np.float16),
    }
    save_file(tensors, path, metadata=metadata)
    return path


def test_a_merged_file_is_the_weighted_mean_tensor_by_tensor(tmp_path: Path):
    first, second = (
        lora(tmp_path / "1.safetensors", 1.0, 4.0),
        lora(tmp_path / "2.safetensors", 5.0, 8.0),
    )
    merge_loras({first: 3, second: 1}, tmp_path / "merged.safetensors", {})
    merged = load_file(tmp_path / "merged.safetensors")
    assert np.array_equal(merged["a.lora_up.weight"], np.full((4, 2), 2.0, np.float16))
    assert np.array_equal(merged["a.lora_down.weight"][1], np.array([6, 8, 10], np.float16))
    assert merged["a.alpha"] == 5.0
    assert {tensor.dtype for tensor in merged.values()} == {np.dtype(np.float16)}


def test_one_file_stays_what_it_is(tmp_path: Path):
    only = lora(tmp_path / "1.safetensors", 0.123, 4.0)
    merge_loras({only: 10}, tmp_path / "merged.safetensors", {})
    kept, merged = load_file(only), load_file(tmp_path / "merged.safetensors")
    assert all(np.array_equal(kept[name], merged[name]) for name in kept)


def test_the_header_is_the_first_files_with_more_over_it(tmp_path: Path):
    first = lora(
        tmp_path / "1.safetensors", 1.0, 4.0, ss_steps="50", prompt="?", sshs_model_hash="old"
    )
    second = lora(tmp_path / "2.safetensors", 1.0, 4.0, ss_steps="100")
    merge_loras({first: 1, second: 1}, tmp_path / "merged.safetensors", {"prompt": "a person"})
    metadata = read_metadata(tmp_path / "merged.safetensors")
    assert metadata["ss_steps"] == "50"
    assert metadata["prompt"] == "a person"
    assert metadata["sshs_model_hash"] == sha256_of_tensors(tmp_path / "merged.safetensors")
