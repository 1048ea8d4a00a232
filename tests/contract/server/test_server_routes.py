from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.fakes import FakeEngine
from tests.servers import wait_ready


def test_memory_is_told_in_bytes(client: TestClient):
    memory = client.get("/sdapi/v1/memory").json()
    assert memory["ram"]["free"] + memory["ram"]["used"] == memory["ram"]["total"]
    assert "error" in memory["cuda"] or "system" in memory["cuda"]


def test_models_are_unloaded_and_loaded_again(client: TestClient, engine: FakeEngine):
    wait_ready(lambda: bool(engine.loaded), 5)
    assert client.post("/sdapi/v1/unload-checkpoint").json() == {}
    wait_ready(lambda: engine.clears == 1 and not engine.loaded, 5)
    assert client.post("/sdapi/v1/reload-checkpoint").json() == {}
    wait_ready(lambda: bool(engine.loaded), 5)


def test_server_is_not_stopped_through_the_api_unless_allowed(client: TestClient):
    for action in ("stop", "kill", "restart"):
        assert client.post(f"/sdapi/v1/server-{action}").status_code == 404


def test_server_stops_through_the_api_where_allowed(serve: Serve):
    client, calls = serve(api_server_stop=True), list[bool]()
    client.app.state.request_stop = lambda: calls.append(True)  # pyright: ignore
    response = client.post("/sdapi/v1/server-stop")
    assert (response.status_code, response.text, calls) == (200, "Stopping.", [True])
    assert client.post("/sdapi/v1/server-restart").status_code == 501


def test_styles_of_several_files_are_listed_under_dividers(serve: Serve, data_dir):
    for name in ("one", "two"):
        (data_dir / f"{name}.csv").write_text(f"name,prompt,negative_prompt\n{name},a,b\n")
    client = serve(styles_files=(data_dir / "one.csv", data_dir / "two.csv"))
    styles = client.get("/sdapi/v1/prompt-styles").json()
    assert [style["prompt"] for style in styles] == [None, "a", None, "a"]
    assert styles[2]["name"].strip("- ") == "TWO"
