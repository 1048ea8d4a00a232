from pathlib import Path

import pytest

from sdapi.errors import BadRequest, PathNotAllowed
from sdapi.security import resolve_save_dir
from sdapi.settings import Mount, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bucket").mkdir()
    return Settings(
        data_dir=tmp_path / "data",
        mounts=(Mount(tmp_path / "bucket", "oss://b/p"),),
        allow_save_dirs=(tmp_path / "more",),
    )


@pytest.mark.parametrize("path", ["data", "data/outputs/x", "bucket/x/y", "more", "data/./x"])
def test_folders_below_an_allowed_root_resolve_to_themselves(settings: Settings, path: str):
    named = settings.data_dir.parent / path
    assert resolve_save_dir(str(named), settings) == named


def test_a_relative_folder_is_below_the_data_directory(settings: Settings):
    assert resolve_save_dir("a/b", settings) == settings.data_dir / "a" / "b"


@pytest.mark.parametrize("path", ["elsewhere", "database", "data-oss", "data/../elsewhere", ".."])
def test_folders_outside_every_root_are_refused(settings: Settings, path: str):
    with pytest.raises(PathNotAllowed):
        resolve_save_dir(f"{settings.data_dir.parent}/{path}", settings)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "/", "a/../../elsewhere", "a/../b"])
def test_escapes_are_refused(settings: Settings, path: str):
    with pytest.raises(PathNotAllowed):
        resolve_save_dir(path, settings)


def test_a_link_that_leaves_the_roots_is_refused(settings: Settings):
    (settings.data_dir / "link").symlink_to(settings.data_dir.parent / "elsewhere")
    for path in ("link", "link/deeper"):
        with pytest.raises(PathNotAllowed, match="outside"):
            resolve_save_dir(path, settings)


def test_a_link_that_stays_inside_resolves_to_its_target(settings: Settings):
    (settings.data_dir / "link").symlink_to(settings.data_dir.parent / "bucket")
    assert resolve_save_dir("link/x", settings) == settings.data_dir.parent / "bucket" / "x"


def test_a_root_that_is_itself_a_link_is_allowed(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "real")
    settings = Settings(data_dir=tmp_path / "data")
    assert resolve_save_dir(str(tmp_path / "data" / "x"), settings) == tmp_path / "real" / "x"


@pytest.mark.parametrize(
    "path", ["", "  ", "a,b", "a\0b", "a\nb", "oss://bucket/x", "a\ud800b", "x" * 256, "x/" * 2000]
)
def test_spellings_that_cannot_work_are_refused(settings: Settings, path: str):
    with pytest.raises(BadRequest) as caught:
        resolve_save_dir(path, settings)
    assert caught.value.detail.isascii()
    assert len(caught.value.detail) < 400


def test_a_loop_of_links_is_refused(settings: Settings):
    (settings.data_dir / "loop").symlink_to(settings.data_dir / "loop")
    with pytest.raises(BadRequest):
        resolve_save_dir("loop/x", settings)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("models", "models"),
        ("models/Stable-diffusion/x", "models"),
        ("cache/x", "cache"),
        ("embeddings", "embeddings"),
        ("extensions/x", "extensions"),
        ("outbox", "outbox"),
        ("portrait/users/1", "portrait"),
        ("sdapi.db", "sdapi.db"),
        ("link/x", "models"),
        ("config.json", "config.json"),
        ("styles.csv/x", "styles.csv"),
        (".git", ".git"),
        ("outputs/.hidden/x", ".hidden"),
    ],
)
def test_what_the_server_keeps_for_itself_is_no_place_for_results(
    settings: Settings, path: str, named: str
):
    (settings.data_dir / "link").symlink_to(settings.data_dir / "models")
    with pytest.raises(PathNotAllowed, match="no place for results") as caught:
        resolve_save_dir(path, settings)
    assert named in caught.value.detail


def test_a_root_within_the_servers_own_folders_may_be_written(tmp_path: Path):
    given = Settings(data_dir=tmp_path, allow_save_dirs=(Path("models/results"), Path(".given")))
    for path in ("models/results/x", ".given/x"):
        assert resolve_save_dir(path, given) == tmp_path / path
    around = Settings(data_dir=tmp_path / "data", models_dir=tmp_path)
    assert resolve_save_dir("x", around) == tmp_path / "data" / "x"


@pytest.mark.parametrize("path", ["file", "file/x/y"])
def test_a_file_in_the_way_is_refused(settings: Settings, path: str):
    (settings.data_dir / "file").touch()
    with pytest.raises(BadRequest, match=f"outdir_samples '{path}'.*is a file") as caught:
        resolve_save_dir(path, settings, field="outdir_samples")
    assert not isinstance(caught.value, PathNotAllowed)
