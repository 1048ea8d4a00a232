from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.contract.conftest import Serve


@pytest.fixture
def picture(data_dir: Path) -> Path:
    path = data_dir / "outputs" / "a.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def test_page_routes_are_there_with_the_page_only(serve: Serve):
    assert serve().get("/internal/ping").json() == {}
    assert serve(webui=False).get("/internal/ping").json() == {"detail": "Not Found"}


def test_files_below_allowed_folders_are_shown(client: TestClient, picture: Path):
    assert client.get(f"/file={picture}").content == picture.read_bytes()
    part = client.get("/file=outputs/a.png", headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, picture.read_bytes()[:4])


@pytest.mark.parametrize(
    "path", ["outputs", "config.json", "../outside.png", "/etc/hostname", "outputs/.hidden.png"]
)
def test_other_files_are_not_shown(client: TestClient, data_dir: Path, picture: Path, path: str):
    for each in (data_dir / "config.json", data_dir / "outputs/.hidden.png"):
        each.write_text("{}")
    response = client.get(f"/file={path}".replace("..", "%2e%2e"))
    assert response.status_code == 403
    assert response.json()["detail"] == f"File not allowed: {path}."


@pytest.mark.parametrize("place", ["portrait/users/1", "models", "cache", "outbox", "extensions"])
def test_pictures_in_the_servers_own_folders_are_not_shown(
    client: TestClient, data_dir: Path, picture: Path, place: str
):
    kept = data_dir / place / "photo.jpg"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(picture.read_bytes())
    assert client.get(f"/file={place}/photo.jpg").status_code == 403


def test_picture_that_a_link_leads_out_to_is_not_shown(client: TestClient, picture: Path, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (picture.parent / "link.png").symlink_to(tmp_path / "secret.png")
    assert client.get("/file=outputs/link.png").status_code == 403


def test_missing_file_is_told(client: TestClient):
    response = client.get("/file=outputs/none.png")
    assert (response.status_code, response.json()["detail"]) == (
        404,
        "File not found: outputs/none.png.",
    )


def test_url_of_a_file_is_redirected_to(client: TestClient):
    response = client.get("/file=https://example.com/a.png", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (
        302,
        "https://example.com/a.png",
    )


def test_login_opens_what_credentials_open(serve: Serve):
    client = serve(api_auth=(("ann", "secret"),))
    assert client.get("/user").status_code == 401
    wrong = client.post("/login", data={"username": "ann", "password": "no"})
    assert (wrong.status_code, wrong.json()["detail"]) == (400, "Incorrect credentials.")
    right = client.post("/login", data={"username": "ann", "password": "secret"})
    assert right.json() == {"success": True}
    assert client.get("/user").json() == "ann"
    assert client.get("/token").json() == {"token": client.cookies["access-token"], "user": "ann"}
    assert client.get("/sdapi/v1/samplers").status_code == 200
    assert client.get("/login_check").status_code == 200


def test_forged_session_opens_nothing(serve: Serve):
    client = serve(api_auth=(("ann", "secret"),))
    client.post("/login", data={"username": "ann", "password": "secret"})
    name, expires, signature = client.cookies["access-token"].split(".")
    client.cookies.clear()
    for forged in (f"{name}.9{expires}.{signature}", "x", "", "a.b.c", f"{name}.{expires}.é"):
        cookie = f"access-token={forged}".encode()
        response = client.get("/user", headers={b"cookie": cookie})
        assert response.status_code == 401


def test_open_server_has_nobody_to_log_in(client: TestClient):
    assert client.get("/user").json() is None
    assert client.get("/token").json() == {"token": None, "user": None}
    login = client.post("/login", data={"username": "a", "password": "b"}, follow_redirects=False)
    assert login.status_code == 302


def test_gradio_protocol_is_refused_with_the_reason(client: TestClient):
    for method, path in (("GET", "/config"), ("POST", "/run/predict"), ("POST", "/upload")):
        response = client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (501, "not_implemented")


def test_system_information_holds_no_credentials(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMMANDLINE_ARGS", "--api-auth a:s3cret --port 1 --token=s3cret")
    response = serve().get("/internal/sysinfo")
    assert response.headers["content-disposition"].startswith('inline; filename="sysinfo-')
    assert "s3cret" not in response.text
    assert response.json()["Environment"]["COMMANDLINE_ARGS"].endswith("--port 1 --token=***")
    assert "attachment" in serve().get("/internal/sysinfo-download").headers["content-disposition"]


def test_queue_is_told_in_gradios_words(client: TestClient):
    status = client.get("/queue/status").json()
    assert (status["queue_size"], status["queue_eta"]) == (0, 1.0)
