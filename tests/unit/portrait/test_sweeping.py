"""What people sent goes when its time is over, whatever happens to one round."""

import asyncio
import os
from pathlib import Path

import pytest

from sdapi.portrait.portrait import Portrait
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.settings import Settings

pytestmark = pytest.mark.anyio


async def test_a_round_that_fails_unforeseen_ends_neither_the_next_nor_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rounds: list[None] = []

    async def open_models(_: SqlitePortraitStore) -> list[tuple[str, str]]:
        rounds.append(None)
        if len(rounds) == 1:
            raise AttributeError("nobody has foreseen this")
        return []

    monkeypatch.setattr("sdapi.portrait.portrait._FIRST_SWEEP_S", 0.0)
    monkeypatch.setattr("sdapi.portrait.portrait._SWEEP_S", 0.01)
    monkeypatch.setattr(SqlitePortraitStore, "open_models", open_models)
    uploads = tmp_path / "portrait" / "users" / "anna" / "original_backup"
    uploads.mkdir(parents=True)
    os.utime(uploads, (1, 1))
    portrait = Portrait.build(Settings(data_dir=tmp_path, portrait_processes=1))
    await portrait.start()
    async with asyncio.timeout(20):
        while uploads.exists():
            await asyncio.sleep(0.01)
    await portrait.close()
    assert len(rounds) > 1
