import base64
from pathlib import Path

import pytest

from sdapi.errors import BadRequest, PathNotAllowed, Unauthorized
from sdapi.security import Credentials, resolve_save_dir
from sdapi.settings import Mount, Settings


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def credentials(**overrides: object) -> Credentials:
    return Credentials(Settings(data_dir=Path("/data"), **overrides))  # type: ignore[arg-type]


def refusal(checked: Credentials, authorization: str | None, service: str | None = None) -> str:
    with pytest.raises(Unauthorized) as caught:
        checked.check(authorization, service)
    return caught.value.detail


def test_without_credentials_the_server_is_open():
    open_server = credentials()
    assert open_server.is_open
    open_server.check(None)
    open_server.check("anything")


USERS = (("anna", "secret"), ("ben", "geheim-ä"))


def test_basic_auth_accepts_each_configured_user():
    checked = credentials(api_auth=USERS)
    assert not checked.is_open
    checked.check(basic("anna:secret"))
    checked.check(basic("ben:geheim-ä"))
    checked.check(basic("anna:secret").replace("Basic", "basic"))
    assert checked.user_of(basic("ben:geheim-ä")) == "ben"


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "Not authenticated"),
        ("", "Not authenticated"),
        ("Bearer secret", "Not authenticated"),
        (basic("anna:geheim-ä"), "Incorrect username or password"),
        (basic("anna:"), "Incorrect username or password"),
        (basic("carl:secret"), "Incorrect username or password"),
        (basic("anna"), "Invalid authentication credentials"),
        ("Basic", "Invalid authentication credentials"),
        ("Basic !!!", "Invalid authentication credentials"),
        ("Basic YW5uYTpzZWNyZXQ", "Invalid authentication credentials"),
    ],
)
def test_basic_auth_refuses_with_the_texts_clients_know(header: str | None, text: str):
    checked = credentials(api_auth=USERS)
    assert refusal(checked, header) == text
    assert checked.user_of(header) is None


def test_a_token_is_taken_bare_and_as_bearer():
    checked = credentials(token="tökén==")
    as_sent = "tökén==".encode().decode("latin-1")  # how a server hands the header on
    for header in ("tökén==", as_sent, f"Bearer {as_sent}", f"bearer  {as_sent}"):
        checked.check(header)
    assert refusal(checked, None) == "Not authenticated"
    for header in ("token", "Bearer token", basic("tökén==:"), "Bearer"):
        assert refusal(checked, header) == "Invalid authentication credentials"
    assert checked.user_of(as_sent) is None


def test_a_token_is_taken_as_the_password_of_any_user():
    checked = credentials(token="tökén==")
    for header in (basic("anna:tökén=="), basic(":tökén==")):
        checked.check(header)
        assert checked.user_of(header) is None
    for header in (basic("anna:tökén="), basic("tökén==:anna"), basic("anna:"), basic(":")):
        assert refusal(checked, header) == "Invalid authentication credentials"


def test_with_both_kinds_either_is_enough():
    checked = credentials(token="T", api_auth=USERS)
    checked.check("T")
    checked.check("Bearer T")
    checked.check(basic("anna:secret"))
    assert refusal(checked, basic("anna:x")) == "Incorrect username or password"
    assert refusal(checked, "Bearer x") == "Invalid authentication credentials"


def test_a_service_token_opens_its_service_only():
    checked = credentials(token="T", service_tokens={"one": "S"})
    checked.check("S", service="one")
    checked.check("T", service="one")
    assert refusal(checked, "S") == "Invalid authentication credentials"
    assert refusal(checked, "S", "two") == "Invalid authentication credentials"


def test_a_service_with_a_token_is_closed_on_an_open_server():
    checked = credentials(service_tokens={"one": "S"})
    checked.check(None)
    checked.check(None, service="two")
    assert refusal(checked, None, "one") == "Not authenticated"


def test_settings_do_not_show_credentials():
    shown = repr(Settings(data_dir=Path("/data"), token="geheim", api_auth=(("a", "geheim"),)))
    assert "geheim" not in shown


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
