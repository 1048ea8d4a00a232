"""The mean of several LoRA files, tensor by tensor: never more than the mean itself in memory."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from sdapi.services.catalog.model_files.safetensors_header import read_metadata, sha256_of_tensors


def merge_loras(weights: Mapping[Path, int], target: Path, metadata: Mapping[str, str]) -> None:
    """Write the mean of files of one training, each counted as often as its weight says.

    The header is the first file's with `metadata` over it. Ups, downs and alphas are averaged
    apart, which is close to averaging the changes they make as long as the files are near to each
    other, as those of one training are.
    """
    files = {path: safe_open(path, "np") for path in weights}
    total, first = sum(weights.values()), next(iter(files))
    merged: dict[str, np.ndarray] = {}
    for name in files[first].keys():  # noqa: SIM118  # the file is no mapping
        summed = sum(
            files[path].get_tensor(name).astype(np.float32) * weight
            for path, weight in weights.items()
        )
        merged[name] = np.asarray(summed / total, np.float16)
    save_file(merged, target)
    told = read_metadata(first) | dict(metadata) | {"sshs_model_hash": sha256_of_tensors(target)}
    save_file(merged, target, metadata=told)
