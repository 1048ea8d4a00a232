from pathlib import Path

import pytest

from sdapi.errors import UnknownName
from sdapi.services.catalog.face_restorers import FACE_RESTORERS, FaceRestorers
from sdapi.settings import Settings


@pytest.fixture
def restorers(tmp_path: Path) -> FaceRestorers:
    return FaceRestorers(Settings(data_dir=tmp_path))


def put(restorers: FaceRestorers, *names: str) -> None:
    for name in names:
        path = restorers.settings.models_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_first_restorer_is_the_one_nobody_names(restorers: FaceRestorers):
    assert FACE_RESTORERS == ("CodeFormer", "GFPGAN")
    assert restorers.find("").name == "CodeFormer"


def test_unknown_restorer_is_refused_with_the_known(restorers: FaceRestorers):
    with pytest.raises(UnknownName, match="'GFPGAM' not found; there are 'GFPGAN'"):
        restorers.find("GFPGAM")


def test_missing_files_are_named(restorers: FaceRestorers):
    put(restorers, "GFPGAN/GFPGANv1.4.pth")
    found = restorers.find("GFPGAN")
    assert found.models is None
    assert "detection_Resnet50_Final.pth and parsing_parsenet.pth" in found.missing
    assert "a GFPGAN model" not in found.missing


def test_tools_may_lie_beside_either_restorer(restorers: FaceRestorers):
    put(
        restorers,
        "GFPGAN/GFPGANv1.4.pth",
        "Codeformer/detection_Resnet50_Final.pth",
        "GFPGAN/parsing_parsenet.pth",
    )
    found = restorers.find("GFPGAN", visibility=0.3)
    assert found.models is not None
    assert found.models.restorer.path.name == "GFPGANv1.4.pth"
    assert found.models.detector.path.parent.name == "Codeformer"
    assert (found.missing, found.visibility) == ("", 0.3)


def test_codeformer_says_which_package_it_needs(restorers: FaceRestorers):
    put(restorers, "Codeformer/codeformer-v0.1.0.pth")
    missing = restorers.find("CodeFormer").missing
    assert "spandrel-extra-arches" in missing or "lacks" in missing
