"""`launch.py portrait-account add|list|quota|revoke`: one JSON object a line.

Exit codes: 0 done, 1 no such account or no database, 2 a command that cannot be understood.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Never

import anyio

from sdapi.errors import SDAPIError
from sdapi.flags import FlagError, parse
from sdapi.portrait.models.folders import ModelFolders
from sdapi.portrait.models.removal import remove_model
from sdapi.portrait.portrait import check_shared, make_store
from sdapi.portrait.state.records import BASES, Account, Base, owner_of
from sdapi.portrait.state.store import PortraitStore
from sdapi.portrait.surfaces.accounts import Accounts
from sdapi.settings import Settings, SettingsError, settings_from

COMMAND: Final = "portrait-account"
OK, FAILED, USAGE = 0, 1, 2


class _UsageError(Exception):
    """The text says what was wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise _UsageError(message)


def main(argv: Sequence[str], base_dir: Path) -> int:
    """Run what the words after `portrait-account` say; returns the exit code."""
    try:
        wanted, flags = _parser().parse_known_args(argv)
        settings = settings_from(parse(flags, os.environ), base_dir)
    except (_UsageError, FlagError, SettingsError) as error:
        return _complain(f"{error}; {COMMAND} --help shows how", USAGE)
    try:
        return anyio.run(_run, wanted, settings)
    except SDAPIError as error:
        return _complain(error.detail, FAILED)


async def _run(wanted: argparse.Namespace, settings: Settings) -> int:
    store = make_store(settings)
    await store.open()
    try:
        return await _ACTIONS[wanted.action](store, wanted, settings)
    finally:
        await store.close()


async def _add(store: PortraitStore, wanted: argparse.Namespace, _: Settings) -> int:
    account = await Accounts(store).add(wanted.models, wanted.quota)
    _say({"app_id": account.app_id, "token": account.token})
    return OK


async def _list(store: PortraitStore, _: argparse.Namespace, __: Settings) -> int:
    for account in await store.accounts():
        _say(_shown(account))
    return OK


async def _quota(store: PortraitStore, wanted: argparse.Namespace, _: Settings) -> int:
    account = await store.set_quota(wanted.app_id, wanted.calls)
    if account is None:
        return _unknown(wanted.app_id)
    _say(_shown(account))
    return OK


async def _revoke(store: PortraitStore, wanted: argparse.Namespace, settings: Settings) -> int:
    folders = ModelFolders(settings.portrait_dir, settings.lora_dirs[0])
    if wanted.purge:  # never the rows without the photos
        await check_shared(settings, folders, store)
    is_known = await store.remove_account(wanted.app_id)
    deleted: list[str] = []
    if wanted.purge:
        owner = owner_of(wanted.app_id)
        deleted = await store.model_ids(owner)
        for model_id in deleted:
            await remove_model(store, folders, owner, model_id)
    if not is_known and not deleted:
        return _unknown(wanted.app_id)
    answer: dict[str, Any] = {"app_id": wanted.app_id, "revoked": is_known}
    _say({**answer, "deleted_models": len(deleted)} if wanted.purge else answer)
    return OK


_ACTIONS: Final = {"add": _add, "list": _list, "quota": _quota, "revoke": _revoke}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"launch.py {COMMAND}",
        description="Accounts of the portrait API. Flags such as --data-dir may follow.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True, parser_class=_Parser)
    add = actions.add_parser("add", help="a new account; prints its app_id and token, once")
    add.add_argument("--models", type=_models, default=BASES, help="sd15,xl (default: both)")
    add.add_argument("--quota", type=_calls, default=None, help="calls it may make (default: any)")
    actions.add_parser("list", help="every account, without tokens")
    quota = actions.add_parser("quota", help="set how many calls an account may make in all")
    quota.add_argument("app_id")
    quota.add_argument("calls", type=_calls, help="a number, or 'none' for no limit")
    revoke = actions.add_parser("revoke", help="the account may call no more")
    revoke.add_argument("app_id")
    revoke.add_argument("--purge", action="store_true", help="delete its models and photos too")
    return parser


def _models(text: str) -> tuple[Base, ...]:
    names = [part.strip() for part in text.split(",")]
    found: tuple[Base, ...] = tuple(base for base in BASES if base in names)
    if len(found) != len(set(names)):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of {', '.join(BASES)}")
    return found


def _calls(text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not text.isascii() or not text.isdecimal() or int(text) >= 1 << 62:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'none'")
    return int(text)


def _shown(account: Account) -> dict[str, Any]:
    return {
        "app_id": account.app_id,
        "models": list(account.models),
        "quota": account.quota,
        "used": account.used,
        "created": round(account.created_s),
    }


def _say(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


def _unknown(app_id: str) -> int:
    return _complain(f"there is no account {app_id!r}", FAILED)


def _complain(sentence: str, code: int) -> int:
    print(f"sdapi: {sentence}", file=sys.stderr)
    return code
