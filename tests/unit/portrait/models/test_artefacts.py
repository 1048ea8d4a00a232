from pathlib import Path

import numpy as np
import pytest

from sdapi.portrait.models.artefacts import ArtefactError, Artefacts, ModelMeta, Reference

META = ModelMeta(
    kind="xl",
    role="scene",
    trigger="a beach",
    lora_name="beach",
    steps=400,
    captions=("a beach", "a beach at night"),
    scores={50: 0.5, 100: 0.75},
    merged_steps=(100, 100, 50),
    providers={"embedder": "sface 2021dec"},
)


def reference(yaw: float = 3.5) -> Reference:
    points = np.arange(136, dtype=np.float32).reshape(68, 2)
    return Reference(points, yaw=yaw, pitch=0.3, mouth_opening=0.1, sharpness=25.0)


def test_what_was_written_is_read_back(tmp_path: Path):
    files = Artefacts(tmp_path)
    files.write_meta(META)
    files.write_reference(0, b"first", reference(3.5))
    files.write_reference(1, b"second", reference(-20.0))
    assert files.meta() == META
    (path, first), (_, second) = files.references()
    assert path.read_bytes() == b"first"
    assert (first.yaw, second.yaw) == (3.5, -20.0)
    assert np.array_equal(first.points68, reference().points68)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"captions": 3}', "\udcff"])
def test_a_broken_meta_file_is_told_by_its_name(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "meta.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ArtefactError, match=r"meta\.json"):
        Artefacts(tmp_path).meta()


def test_references_that_cannot_be_read_are_left_out(tmp_path: Path):
    files = Artefacts(tmp_path)
    files.write_reference(0, b"first", reference())
    files.write_reference(1, b"second", reference())
    (tmp_path / "refs" / "0.json").write_text('{"points68": [[1, 2]]}')
    assert [path.name for path, _ in files.references()] == ["1.jpg"]


def test_the_face_of_the_reference_picture_is_kept(tmp_path: Path):
    files = Artefacts(tmp_path)
    assert files.reference_face() is None
    files.write_reference_face(reference())
    kept = files.reference_face()
    assert kept is not None
    assert np.array_equal(kept.points68, reference().points68)
    (tmp_path / "ref_image.json").write_text("[]")
    assert files.reference_face() is None
