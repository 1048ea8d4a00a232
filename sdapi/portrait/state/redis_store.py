"""Accounts, jobs and models in the Redis that several servers share, every step one Lua script."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from sdapi.errors import SDAPIError
from sdapi.portrait.state.records import (
    BASES,
    Account,
    Base,
    Job,
    JobState,
    Model,
    NewJob,
    Outcome,
    kept_request,
)
from sdapi.portrait.state.store import REQUESTING, StateUnavailable
from sdapi.redis.calling import RedisScript
from sdapi.redis.rights import why_unusable

_SCRIPT: Final = Path(__file__).with_suffix(".lua")


class RedisPortraitStore:
    """`PortraitStore` on one Redis server.

    Nothing is sent again by itself: a call counted twice is worse than an error that says so.
    """

    def __init__(self, url: str) -> None:
        text = _SCRIPT.read_text(encoding="utf-8")
        self._script = RedisScript(url, text, "the portraits' Redis", StateUnavailable)

    async def open(self) -> None:
        self._script.open()
        try:
            await self.account("")  # what a server does first may come much later
        except SDAPIError as error:
            await self.close()
            raise StateUnavailable(f"--queue-url: {why_unusable(error)}") from error

    async def close(self) -> None:
        await self._script.close()

    async def add_account(self, account: Account) -> bool:
        return await self._call(
            "add_account",
            app_id=account.app_id,
            token=account.token,
            models=",".join(account.models),
            quota=_text(account.quota),
        )

    async def account(self, app_id: str) -> Account | None:
        return _to_account(await self._call("account", app_id=app_id))

    async def accounts(self) -> list[Account]:
        found = [_to_account(each) for each in await self._call("accounts")]
        return [account for account in found if account is not None]

    async def set_quota(self, app_id: str, quota: int | None) -> Account | None:
        return _to_account(await self._call("set_quota", app_id=app_id, quota=_text(quota)))

    async def remove_account(self, app_id: str) -> bool:
        return await self._call("remove_account", app_id=app_id)

    async def take_call(self, app_id: str) -> bool:
        return await self._call("take_call", app_id=app_id)

    async def give_back_call(self, app_id: str) -> None:
        await self._call("give_back_call", app_id=app_id)

    async def add_job(self, job: NewJob) -> Job:
        made = _to_job(
            await self._call(
                "add_job",
                owner=job.owner,
                model_id=job.model_id,
                app_id=job.app_id,
                request=json.dumps(dict(job.request)),
                message=REQUESTING,
            )
        )
        assert made is not None
        return made

    async def job(self, owner: str, job_id: int) -> Job | None:
        return _to_job(await self._call("job", owner=owner, id=str(job_id)))

    async def claim_job(self, holder: str, lease_s: float) -> Job | None:
        return _to_job(await self._call("claim_job", holder=holder, lease_s=lease_s))

    async def renew_job(self, job_id: int, holder: str, lease_s: float) -> bool:
        return await self._call("renew_job", id=str(job_id), holder=holder, lease_s=lease_s)

    async def release_job(self, job_id: int, holder: str) -> bool:
        return await self._call("release_job", id=str(job_id), holder=holder)

    async def finish_job(self, job_id: int, holder: str, outcome: Outcome) -> bool:
        return await self._call(
            "finish_job",
            id=str(job_id),
            holder=holder,
            state=str(int(outcome.state)),
            message=outcome.message,
            result=outcome.result,
            about=None if outcome.model is None else json.dumps(dict(outcome.model)),
        )

    async def open_models(self) -> list[tuple[str, str]]:
        return [(owner, model_id) for owner, model_id in await self._call("open_models")]

    async def model(self, owner: str, model_id: str) -> Model | None:
        found = await self._call("model", owner=owner, model_id=model_id)
        return None if found is None else _to_model(owner, model_id, found)

    async def put_model(self, owner: str, model_id: str, about: Mapping[str, Any]) -> None:
        text = json.dumps(dict(about))
        await self._call("put_model", owner=owner, model_id=model_id, about=text)

    async def delete_model(self, owner: str, model_id: str) -> bool:
        return await self._call("delete_model", owner=owner, model_id=model_id)

    async def model_ids(self, owner: str) -> list[str]:
        return sorted(await self._call("model_ids", owner=owner))

    async def folder_marker(self, proposed: str) -> str:
        return await self._call("folder_marker", proposed=proposed)

    async def _call(self, operation: str, **arguments: Any) -> Any:
        """The answer of an operation; None for null. Raises StateUnavailable, StorageFailed."""
        given = {name: value for name, value in arguments.items() if value is not None}
        answer = await self._script.call(operation, orjson.dumps(given))
        return None if answer is None else orjson.loads(answer)


def _text(number: int | None) -> str | None:
    """Lua's numbers are doubles; a text stays exact."""
    return None if number is None else str(number)


def _to_account(found: Mapping[str, str] | None) -> Account | None:
    if not found:
        return None
    named = found["models"].split(",")
    bases: tuple[Base, ...] = tuple(base for base in BASES if base in named)
    quota = int(found["quota"]) if "quota" in found else None
    created_s = float(found["created_s"])
    return Account(found["app_id"], found["token"], bases, quota, int(found["used"]), created_s)


def _to_job(found: Mapping[str, Any] | None) -> Job | None:
    if not found:
        return None
    return Job(
        found["owner"],
        found["model_id"],
        kept_request(int(found["id"]), found["request"]),
        found.get("app_id"),
        int(found["id"]),
        JobState(int(found["state"])),
        found["message"],
        found["result"],
        float(found["created_s"]),
        int(found["attempts"]),
    )


def _to_model(owner: str, model_id: str, text: str) -> Model:
    kept = orjson.loads(text)
    return Model(owner, model_id, kept["about"], float(kept["created_s"]))
