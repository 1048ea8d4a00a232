import base64
import hashlib
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from sdapi.engine.networks.embedding_file import read_embedding
from sdapi.errors import ModelUnusable

VECTORS = torch.arange(3 * 64, dtype=torch.float32).reshape(3, 64) / 64


def as_json(name: str = "inside") -> bytes:
    """What pictures carry: tensors as nested lists."""
    param = {"*": {"TORCHTENSOR": VECTORS.tolist()}}
    content = {"name": name, "step": 7, "string_to_token": {"*": 265}, "string_to_param": param}
    return json.dumps(content).encode()


def test_tensors_under_a_word_have_the_files_name(tmp_path: Path):
    path = tmp_path / "my word.pt"
    torch.save({"string_to_param": {"*": VECTORS}, "name": "other", "step": 5}, path)
    embedding = read_embedding(path)
    assert (embedding.name, len(embedding), embedding.step) == ("my word", 3, 5)
    assert torch.equal(embedding.vectors[0], VECTORS)
    assert embedding.fits((64,))
    assert not embedding.fits((768,))


def test_shorthash_is_of_the_whole_file(tmp_path: Path):
    path = tmp_path / "word.safetensors"
    save_file({"emb_params": VECTORS}, path)
    assert read_embedding(path).shorthash == hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def test_lone_tensor_lone_vector_and_a_module_of_parameters(tmp_path: Path):
    lone = tmp_path / "lone.safetensors"
    save_file({"emb_params": VECTORS.half()}, lone)
    assert torch.allclose(read_embedding(lone).vectors[0], VECTORS, atol=1e-2)
    vector = tmp_path / "vector.bin"
    torch.save({"<word>": VECTORS[0]}, vector)
    assert read_embedding(vector).vectors[0].shape == (1, 64)
    module = tmp_path / "module.pt"
    parameters = torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS)})
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": parameters}, module)
    assert torch.equal(read_embedding(module).vectors[0], VECTORS)


def test_pair_for_sdxl_has_vectors_for_each_text_encoder(tmp_path: Path):
    path = tmp_path / "pair.safetensors"
    save_file({"clip_g": torch.ones(2, 128), "clip_l": torch.zeros(2, 64)}, path)
    embedding = read_embedding(path)
    assert [v.shape for v in embedding.vectors] == [(2, 64), (2, 128)]
    assert (embedding.width, embedding.fits((64, 128))) == (192, True)


def test_picture_with_a_text_chunk_has_its_own_name(tmp_path: Path):
    path = tmp_path / "shown.png"
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("sd-ti-embedding", base64.b64encode(as_json()).decode())
    Image.new("RGB", (8, 8)).save(path, pnginfo=chunks)
    embedding = read_embedding(path)
    assert (embedding.name, embedding.step) == ("inside", 7)
    assert torch.allclose(embedding.vectors[0], VECTORS)


def scrambler(count: int) -> np.ndarray[Any, Any]:
    """The generator's numbers, one by one."""
    values, seed = list[int](), 0
    for _ in range(count):
        seed = (1664525 * seed + 1013904223) % 2**32
        values.append(seed % 255)
    return np.array(values, np.uint8) & 0x0F


def hidden_in(picture: np.ndarray[Any, Any], content: bytes) -> np.ndarray[Any, Any]:
    """A picture between two blocks that hold the content, as those who share embeddings make it."""
    height = len(picture)
    data = np.frombuffer(zlib.compress(content, 9), np.uint8)
    size = -(-(len(data) + 1) // (3 * height)) * 3 * height
    padded = np.zeros(size, np.uint8)
    padded[: len(data)] = data
    mask = scrambler(size)
    blocks = [
        ((half ^ mask).reshape(height, -1, 3) | 0x50).astype(np.uint8)
        for half in (padded & 0x0F, padded >> 4)
    ]
    border = np.full((height, 1, 3), 0x40, np.uint8)
    middle = picture & 0xF0 | 0x08
    return np.concatenate([blocks[0], border, middle, border, blocks[1]], axis=1)


@pytest.mark.parametrize("frame", [0, 5])
def test_picture_with_an_embedding_in_its_pixels(tmp_path: Path, frame: int):
    numbers = np.random.default_rng(0)
    pixels = hidden_in(numbers.integers(0, 256, (40, 30, 3), np.uint8), as_json("pixels"))
    pixels = np.pad(pixels, ((frame, frame), (frame, frame), (0, 0)))
    path = tmp_path / "shared.webp"
    Image.fromarray(pixels).save(path, lossless=True)
    embedding = read_embedding(path)
    assert embedding.name == "pixels"
    assert torch.allclose(embedding.vectors[0], VECTORS)


def picture_bytes(width: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, 8), "red").save(out, "PNG")
    return out.getvalue()


def saved(content: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.png", picture_bytes(), "a picture without an embedding"),
        ("a.png", b"nothing", "no readable picture"),
        ("a.pt", b"nothing", "not a PyTorch file"),
        ("a.safetensors", b"nothing", "not a whole safetensors file"),
        ("a.pt", saved({"a": torch.ones(2, 2), "b": torch.ones(2, 2)}), "holds no embedding"),
        ("a.pt", saved([1, 2]), "holds no embedding"),
        ("a.pt", saved({"a": torch.full((1, 4), torch.nan)}), "no numbers"),
        ("a.pt", saved({"a": torch.ones(76, 4)}), "76 vectors; a prompt has room for 75"),
        ("a.pt", saved({"a": torch.ones(0, 4)}), "0 vectors"),
        ("a.pt", saved({"a": torch.ones(1, 4, 4)}), "no vectors"),
        (
            "a.pt",
            saved({"clip_l": torch.ones(2, 4), "clip_g": torch.ones(3, 4)}),
            "different numbers",
        ),
    ],
)
def test_what_is_no_embedding_is_refused_by_name(
    tmp_path: Path, name: str, data: bytes, reason: str
):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ModelUnusable, match=rf"^{name}: .*{reason}"):
        read_embedding(path)
