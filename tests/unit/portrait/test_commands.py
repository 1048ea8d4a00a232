import json
from pathlib import Path
from typing import Any

import pytest

from sdapi.portrait.commands import main


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


def test_an_account_that_is_not_there_is_an_error(run: Any):
    assert run("quota", "1", "5") == (1, [])
    assert run("revoke", "1") == (1, [])


@pytest.mark.parametrize(
    "words",
    [[], ["drop"], ["add", "--models", "sd3"], ["quota", "1", "-3"], ["add", "--no-such-flag"]],
)
def test_what_cannot_be_understood_is_a_usage_error(run: Any, words: list[str]):
    assert run(*words) == (2, [])
