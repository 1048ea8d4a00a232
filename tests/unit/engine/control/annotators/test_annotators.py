"""Annotators with small random weights of the published layout, against `controlnet_aux` itself."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdapi.engine.control.annotators.annotators import Annotators
from sdapi.engine.control.annotators.auxiliary import controlnet_aux, quietly
from sdapi.engine.control.annotators.detected_map import Pixels
from sdapi.engine.control.annotators.files import FACES, FILES, UNSUPPORTED, annotator_files
from sdapi.engine.control.annotators.hub import published
from sdapi.engine.control.annotators.recipes import RECIPES
from sdapi.errors import AnnotatorMissing, BadRequest, ModelUnusable, QueueFull
from sdapi.extensions.controlnet.preprocessors import PREPROCESSORS, Kind, find

#: `mediapipe_face` reads none of these files
NETWORKS = [p.name for p in PREPROCESSORS if p.kind is Kind.NETWORK and p.name != FACES]


@pytest.fixture(scope="module")
def canvas() -> Pixels:
    generator = np.random.RandomState(0)
    coarse = generator.randint(0, 255, (8, 16, 3)).astype(np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1))


def save_pidinet(folder: Path, seed: int = 0) -> Path:
    """Random weights as they are published: wrapped, with the prefix of training on many GPUs."""
    torch.manual_seed(seed)
    state = controlnet_aux().pidi.pidinet().state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "table5_pidinet.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    return path


def save_plain(network: torch.nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("pidinet", {}),
        ("pidinet_safe", {"safe": True}),
        ("pidinet_scribble", {"scribble": True}),
        ("pidinet_sketch", {"apply_filter": True}),
    ],
)
def test_pidinet_draws_what_the_package_draws(
    tmp_path: Path, canvas: Pixels, name: str, arguments: dict[str, Any]
) -> None:
    save_pidinet(tmp_path)
    original = controlnet_aux().PidiNetDetector.from_pretrained(tmp_path)
    sides = {"detect_resolution": 64, "image_resolution": 64, "output_type": "np"}
    expected = quietly(original, canvas, **sides, **arguments)

    made = Annotators(tmp_path).detect(name, canvas, 0.5, 0.5)

    assert np.array_equal(made.pixels, expected)
    assert made.pixels.shape == canvas.shape


def test_teed_draws_what_the_package_draws(tmp_path: Path, canvas: Pixels) -> None:
    aux = controlnet_aux()
    torch.manual_seed(0)
    save_plain(aux.teed.TED(), tmp_path / "7_model.pth")
    original = aux.TEEDdetector.from_pretrained(tmp_path, filename="7_model.pth")
    expected = quietly(original, canvas, detect_resolution=64, safe_steps=3, output_type="np")

    made = Annotators(tmp_path).detect("softedge_teed", canvas, 3, 0.5)

    assert np.array_equal(made.pixels, expected)


def test_mlsd_takes_its_thresholds(tmp_path: Path, canvas: Pixels) -> None:
    aux = controlnet_aux()
    torch.manual_seed(0)
    save_plain(aux.mlsd.MobileV2_MLSD_Large(), tmp_path / "mlsd_large_512_fp32.pth")
    annotators = Annotators(tmp_path)

    loose = annotators.detect("mlsd", canvas, 0.01, 0.01)
    strict = annotators.detect("mlsd", canvas, 2.0, 20.0)

    assert loose.pixels.shape == canvas.shape
    assert strict.pixels.sum() <= loose.pixels.sum()


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_file_is_named_with_its_place(tmp_path: Path, name: str) -> None:
    if name in UNSUPPORTED:
        with pytest.raises(BadRequest, match="not supported"):
            annotator_files(name, tmp_path)
        return

    with pytest.raises(AnnotatorMissing) as raised:
        annotator_files(name, tmp_path)

    assert FILES[name][0].rstrip("/") in raised.value.detail
    assert str(tmp_path) in raised.value.detail


def test_every_supported_network_has_files_and_a_recipe() -> None:
    assert set(NETWORKS) - UNSUPPORTED == FILES.keys() == RECIPES.keys()


def test_files_are_found_in_folders_below(tmp_path: Path, canvas: Pixels) -> None:
    save_pidinet(tmp_path / "pidinet")

    made = find("softedge_pidinet").run(canvas[:50], resolution=64, annotators=Annotators(tmp_path))

    # 50 x 128 becomes 64 x 164, and what fills the canvas is cut off again.
    assert made.pixels.shape == (64, 164, 3)


def test_replaced_file_is_read_anew(tmp_path: Path, canvas: Pixels) -> None:
    annotators = Annotators(tmp_path)
    save_pidinet(tmp_path)
    first = annotators.detect("pidinet", canvas, 0.5, 0.5)
    again = annotators.detect("pidinet", canvas, 0.5, 0.5)

    save_pidinet(tmp_path, seed=1)
    other = annotators.detect("pidinet", canvas, 0.5, 0.5)

    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\3\4 torn"])
def test_file_that_holds_no_weights_is_named(
    tmp_path: Path, canvas: Pixels, content: bytes
) -> None:
    (tmp_path / "table5_pidinet.pth").write_bytes(content)

    with pytest.raises(ModelUnusable, match=r"table5_pidinet\.pth"):
        Annotators(tmp_path).detect("pidinet", canvas, 0.5, 0.5)


def test_weights_of_another_network_are_refused(tmp_path: Path, canvas: Pixels) -> None:
    save_plain(controlnet_aux().teed.TED(), tmp_path / "table5_pidinet.pth")

    with pytest.raises(ModelUnusable, match="something else than its name says"):
        Annotators(tmp_path).detect("pidinet", canvas, 0.5, 0.5)


def test_folder_without_a_model_is_named(tmp_path: Path, canvas: Pixels) -> None:
    (tmp_path / "depth_anything").mkdir()

    with pytest.raises(ModelUnusable, match="depth_anything"):
        Annotators(tmp_path).detect("depth_anything", canvas, 0.5, 0.5)


def test_missing_file_is_fetched_where_that_is_allowed(tmp_path: Path, canvas: Pixels) -> None:
    asked: list[str] = []

    def fetch(file: str, folder: Path) -> None:
        asked.append(file)
        save_pidinet(folder)

    annotators = Annotators(tmp_path, fetch=fetch)
    annotators.detect("pidinet", canvas, 0.5, 0.5)
    annotators.detect("pidinet_safe", canvas, 0.5, 0.5)

    assert asked == ["table5_pidinet.pth"]


def test_every_file_has_a_place_to_fetch_it_from() -> None:
    assert published() == {file for files in FILES.values() for file in files}


def test_kept_map_is_told_again(tmp_path: Path, canvas: Pixels) -> None:
    save_pidinet(tmp_path)
    keeping, forgetting = Annotators(tmp_path, kept_maps=2), Annotators(tmp_path)

    again = [keeping.detect("pidinet", canvas, 0.5, 0.5) for _ in range(2)]
    anew = [forgetting.detect("pidinet", canvas, 0.5, 0.5) for _ in range(2)]
    other = keeping.detect("pidinet", np.ascontiguousarray(canvas[::-1]), 0.5, 0.5)

    assert again[0] is again[1]
    assert anew[0] is not anew[1]
    assert not np.array_equal(other.pixels, again[0].pixels)


def test_picture_does_not_wait_for_ever(tmp_path: Path, canvas: Pixels) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def fetch(file: str, folder: Path) -> None:
        begun.set()
        may_end.wait(20)

    annotators = Annotators(tmp_path, fetch=fetch, patience_s=0.05)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(annotators.detect, "pidinet", canvas, 0.5, 0.5)
        assert begun.wait(20)
        with pytest.raises(QueueFull, match="busy"):
            annotators.detect("pidinet", canvas, 0.5, 0.5)
        may_end.set()
        with pytest.raises(AnnotatorMissing):
            slow.result(20)


def test_a_seed_draws_anew_only_where_it_counts(tmp_path: Path, canvas: Pixels) -> None:
    save_pidinet(tmp_path)
    annotators = Annotators(tmp_path, kept_maps=2)

    first, second = (annotators.detect("pidinet", canvas, 0.5, 0.5, seed) for seed in (1, 2))

    assert first is second


def test_a_download_holds_up_no_picture_of_another_network(tmp_path: Path, canvas: Pixels) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def fetch(file: str, folder: Path) -> None:
        begun.set()
        may_end.wait(20)

    save_pidinet(tmp_path)
    annotators = Annotators(tmp_path, fetch=fetch, patience_s=0.05)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(annotators.detect, "hed", canvas, 0.5, 0.5)
        assert begun.wait(20)
        assert annotators.detect("pidinet", canvas, 0.5, 0.5).pixels.any()
        may_end.set()
        with pytest.raises(AnnotatorMissing):
            slow.result(20)


def test_no_more_pictures_wait_than_may(tmp_path: Path, canvas: Pixels) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def fetch(file: str, folder: Path) -> None:
        begun.set()
        may_end.wait(20)

    annotators = Annotators(tmp_path, fetch=fetch, most_waiting=0)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(annotators.detect, "pidinet", canvas, 0.5, 0.5)
        assert begun.wait(20)
        with pytest.raises(QueueFull, match="0 pictures wait"):
            annotators.detect("pidinet", canvas, 0.5, 0.5)
        may_end.set()
        with pytest.raises(AnnotatorMissing):
            slow.result(20)
