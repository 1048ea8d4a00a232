"""What a store of accounts, jobs and models promises.

Every method is one atomic step, safe among several servers: a job is run by one of them, which
holds it by a lease; a quota cannot be overdrawn by calls that come at the same time.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from sdapi.errors import SDAPIError
from sdapi.portrait.state.records import Account, Job, Model, NewJob, Outcome

#: the message of a job that has not ended
REQUESTING: Final = "model requesting"


class StateUnavailable(SDAPIError):
    """The store cannot be reached now; the request may be repeated."""

    status, code = 503, "portrait_state_unavailable"
    retry_after_s = 5


class PortraitStore(Protocol):
    """State of the portrait surfaces."""

    async def open(self) -> None:
        """Make ready for use; raises StorageFailed, StateUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of the database; more calls change nothing."""
        ...

    # --- accounts ---

    async def add_account(self, account: Account) -> bool:
        """Keep a new account; False when its AppId is taken."""
        ...

    async def account(self, app_id: str) -> Account | None:
        """The account of an AppId; None for an unknown one."""
        ...

    async def accounts(self) -> list[Account]:
        """Every account, the oldest first."""
        ...

    async def set_quota(self, app_id: str, quota: int | None) -> Account | None:
        """Change how many calls it may make in all; None for an unknown AppId."""
        ...

    async def remove_account(self, app_id: str) -> bool:
        """Forget the account; its models and jobs stay until they are deleted."""
        ...

    async def take_call(self, app_id: str) -> bool:
        """Count a call; False when the quota is used up or the account has gone."""
        ...

    async def give_back_call(self, app_id: str) -> None:
        """Uncount a call that failed."""
        ...

    # --- jobs ---

    async def add_job(self, job: NewJob) -> Job:
        """Keep a job; its number is positive, fits 31 bits and is never used again."""
        ...

    async def job(self, owner: str, job_id: int) -> Job | None:
        """The owner's job; None for another's."""
        ...

    async def claim_job(self, holder: str, lease_s: float) -> Job | None:
        """The oldest job that nobody holds, now running and held for `lease_s` seconds."""
        ...

    async def renew_job(self, job_id: int, holder: str, lease_s: float) -> bool:
        """Hold on to a job; False when it has been deleted or taken over."""
        ...

    async def release_job(self, job_id: int, holder: str) -> bool:
        """Let go of a job as if it had not been begun; False as with `renew_job`."""
        ...

    async def finish_job(self, job_id: int, holder: str, outcome: Outcome) -> bool:
        """End a job and publish its model, or give the call back; False as with `renew_job`."""
        ...

    async def open_models(self) -> list[tuple[str, str]]:
        """Owner and model of every job that has not ended."""
        ...

    # --- models ---

    async def model(self, owner: str, model_id: str) -> Model | None:
        """The owner's trained model; None for another's and for one not trained yet."""
        ...

    async def put_model(self, owner: str, model_id: str, about: Mapping[str, Any]) -> None:
        """Keep a model that was trained without a job; it takes an older one's place."""
        ...

    async def delete_model(self, owner: str, model_id: str) -> bool:
        """Forget a model and every job about it; False when there was neither."""
        ...

    async def model_ids(self, owner: str) -> list[str]:
        """Every model of an owner, those that are to be trained among them."""
        ...

    # --- servers ---

    async def folder_marker(self, proposed: str) -> str:
        """The text that the shared folder of model files carries; the first proposal stays."""
        ...
