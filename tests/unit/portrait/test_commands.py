import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from sdapi.portrait.commands import main
from sdapi.portrait.state.records import NewJob, owner_of
from sdapi.portrait.state.redis_store import RedisPortraitStore
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from tests.queues.queue_stores import redis_server, redis_servers

ID, OTHER_ID, WAITING_ID = (f"fa4ba43a-df55-45a4-9c31-bb0dc1e5000{n}" for n in range(3))


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command; its exit code and the objects it printed."""

    def call(*words: str) -> tuple[int, list[dict[str, Any]]]:
        code = main([*words, "--data-dir", str(tmp_path / "data")], tmp_path)
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


def test_accounts_are_added_listed_limited_and_revoked(run: Any):
    code, (added,) = run("add", "--models", "sd15", "--quota", "5")
    assert code == 0
    assert set(added) == {"app_id", "token"}
    assert len(added["token"]) == 32
    app_id = added["app_id"]
    _, (second,) = run("add")
    assert second["app_id"] != app_id
    _, listed = run("list")
    assert [(each["app_id"], each["models"], each["quota"]) for each in listed] == [
        (app_id, ["sd15"], 5),
        (second["app_id"], ["sd15", "xl"], None),
    ]
    assert "token" not in listed[0]
    assert run("quota", app_id, "7")[1][0]["quota"] == 7
    assert run("quota", app_id, "none")[1][0]["quota"] is None
    assert run("revoke", app_id) == (0, [{"app_id": app_id, "revoked": True}])
    assert [each["app_id"] for each in run("list")[1]] == [second["app_id"]]


def test_a_purge_says_what_it_deleted(run: Any):
    app_id = run("add")[1][0]["app_id"]
    assert run("revoke", app_id, "--purge") == (
        0,
        [{"app_id": app_id, "revoked": True, "deleted_models": 0}],
    )


def test_a_purge_deletes_models_and_photos(run: Any, tmp_path: Path):
    app_id = run("add")[1][0]["app_id"]
    other = run("add")[1][0]["app_id"]
    store = SqlitePortraitStore(tmp_path / "data" / "sdapi.db")

    async def fill() -> None:
        await store.open()
        for owner, model_id in ((owner_of(app_id), ID), (owner_of(other), OTHER_ID)):
            await store.put_model(owner, model_id, {"base": "sd15"})
        await store.add_job(NewJob(owner_of(app_id), WAITING_ID, {}))
        await store.close()

    async def left() -> list[list[str]]:
        await store.open()
        found = [await store.model_ids(owner_of(each)) for each in (app_id, other)]
        await store.close()
        return found

    anyio.run(fill)
    models = tmp_path / "data" / "portrait" / "models"
    for model_id in (ID, OTHER_ID):
        (models / model_id / "original_backup").mkdir(parents=True)
        (models / model_id / "original_backup" / "0.jpg").write_bytes(b"photo")
    assert run("revoke", app_id, "--purge") == (
        0,
        [{"app_id": app_id, "revoked": True, "deleted_models": 2}],
    )
    assert [path.name for path in models.iterdir()] == [OTHER_ID]
    assert anyio.run(left) == [[], [OTHER_ID]]


@pytest.mark.skipif(not redis_servers(), reason="no Redis server is installed")
def test_a_purge_beside_another_folder_is_refused_before_anything_goes(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    program = next(iter(redis_servers().values()))
    with redis_server(program, tmp_path / "redis", fsync="no") as server:
        queue = f"--queue-url={server.url}"
        app_id = run("add", queue)[1][0]["app_id"]

        async def mark() -> None:
            store = RedisPortraitStore(server.url)
            await store.open()
            await store.folder_marker("that of the servers")
            await store.close()

        anyio.run(mark)
        assert main(["revoke", app_id, "--purge", queue], tmp_path) == 1
        assert "--data-dir" in capsys.readouterr().err
        assert [each["app_id"] for each in run("list", queue)[1]] == [app_id]


def test_an_account_that_is_not_there_is_an_error(run: Any):
    assert run("quota", "1", "5") == (1, [])
    assert run("revoke", "1") == (1, [])


@pytest.mark.parametrize(
    "words",
    [[], ["drop"], ["add", "--models", "sd3"], ["quota", "1", "-3"], ["add", "--no-such-flag"]],
)
def test_what_cannot_be_understood_is_a_usage_error(run: Any, words: list[str]):
    assert run(*words) == (2, [])
