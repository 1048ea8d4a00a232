"""Who calls the REST surface, and how often they may."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sdapi.portrait import faults
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.state.records import Account, Base
from sdapi.portrait.state.store import PortraitStore
from sdapi.portrait.wire.signature import is_signed
from sdapi.services.unbroken import to_its_end

_APP_ID_DIGITS = 10


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A request as it came over the wire: what its signature covers, and who signed."""

    authorization: str
    method: str
    path: str
    query: str
    body: bytes


class Accounts:
    """Accounts in a store."""

    def __init__(self, store: PortraitStore) -> None:
        self._store = store

    async def find(self, authorization: str) -> Account:
        """The account that a header names; its signature has not been looked at."""
        app_id, colon, _ = authorization.partition(":")
        account = await self._store.account(app_id.strip()) if colon else None
        if account is None:
            raise PortraitError(faults.APP_UNKNOWN)
        return account

    @staticmethod
    def verify(account: Account, call: SignedCall) -> None:
        """Raise PortraitError unless the account's token made the signature."""
        offered = call.authorization.partition(":")[2].strip()
        if not is_signed(offered, account.token, call.method, call.path, call.query, call.body):
            raise PortraitError(faults.SIGN_WRONG)

    @asynccontextmanager
    async def counted(self, account: Account) -> AsyncGenerator[None]:
        """Count a call, unless it fails or its caller leaves; raises PortraitError over the quota.

        What the store has begun it does: a step whose caller was cancelled is waited for.
        """
        is_taken = False

        async def take() -> None:
            nonlocal is_taken
            is_taken = await self._store.take_call(account.app_id)

        try:
            await to_its_end(take())
            if not is_taken:
                raise PortraitError(faults.QUOTA_EXCEEDED)
            yield
        except BaseException:
            if is_taken:
                await to_its_end(self._store.give_back_call(account.app_id))
            raise

    async def add(self, models: tuple[Base, ...], quota: int | None) -> Account:
        """A new account with an AppId and a token of its own."""
        while True:
            app_id = str(secrets.choice(range(10 ** (_APP_ID_DIGITS - 1), 10**_APP_ID_DIGITS)))
            account = Account(app_id, secrets.token_hex(16), models, quota)
            if await self._store.add_account(account):
                return account
