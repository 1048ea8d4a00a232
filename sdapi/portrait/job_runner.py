"""Runs the jobs of the REST surface, one at a time on each server.

A job is held by a lease. What passes (no place in a queue, a store that is away, a server that
stops) costs it nothing: it is let go as if it had not been begun, and the next holder goes on
where its training stopped.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sdapi.errors import SDAPIError, ShuttingDown
from sdapi.portrait import faults
from sdapi.portrait.faults import PASSING, PortraitError
from sdapi.portrait.handlers import Trainer
from sdapi.portrait.state.records import Job, Outcome
from sdapi.portrait.state.store import PortraitStore
from sdapi.portrait.wire import jobs
from sdapi.portrait.wire.requests import TrainRequest

LEASE_S: Final = 60.0
_RENEW_S: Final = 15.0
#: jobs of other servers are looked for this often
_POLL_S: Final = 5.0
#: between tries of a store that is away
_RETRY_S: Final = 1.0
#: for a store that is away while the server stops
_LAST_TRY_S: Final = 5.0
#: a job that ended its server this often is not begun again
MAX_ATTEMPTS: Final = 3
#: deletes the files of an owner's model
Forget = Callable[[str, str], Awaitable[object]]
Settle = Callable[[], Awaitable[None]]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _End:
    """How a training ended, and what to do when that is written down."""

    outcome: Outcome
    settle: Settle | None = None


class JobRunner:
    """Claims jobs from the store and hands them to the trainer."""

    def __init__(
        self,
        store: PortraitStore,
        trainer: Trainer,
        forget: Forget,
        *,
        is_corrected: bool,
        renew_s: float = _RENEW_S,
    ) -> None:
        self._store = store
        self._trainer = trainer
        self._forget = forget
        self._is_corrected = is_corrected
        self._renew_s = renew_s
        #: by this name it holds jobs
        self.holder = uuid.uuid4().hex
        self._new = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        #: jobs that a store which was away has not been told of
        self._to_release: set[int] = set()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """A job has been added."""
        self._new.set()

    async def close(self) -> None:
        """Stop; a job that runs is given back for the next server."""
        self._is_closed = True
        self.wake()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while not self._is_closed:
            self._new.clear()
            try:
                await self._release()
                job = await self._store.claim_job(self.holder, LEASE_S)
                if job is not None:
                    await self._do(job)
                    continue
            except ShuttingDown:
                return
            except SDAPIError as error:
                log.warning("portrait jobs wait: %s", error)
            except Exception:  # one defect, in a store or a job, must not end all later jobs
                log.exception("portrait jobs wait after an unforeseen error")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._new.wait(), _POLL_S)

    async def _do(self, job: Job) -> None:
        """Train while the lease is held, and write down the end.

        Raises what passes, and what a store that is away raises.
        """
        training = asyncio.ensure_future(self._outcome(job))
        try:
            if await self._is_kept(job, training):
                await self._settle(job, training.result())
                return
        except (asyncio.CancelledError, SDAPIError):
            await _ended(training)
            self._to_release.add(job.id)
            with suppress(TimeoutError, SDAPIError):
                async with asyncio.timeout(_LAST_TRY_S):
                    await self._release()
            raise
        finally:
            await _ended(training)
        await self._forget_deleted(job)

    async def _is_kept(self, job: Job, training: asyncio.Future[_End]) -> bool:
        """Wait for the end, renewing the lease; False once the job is another's, or nobody's.

        Raises what the store raises once the lease has ended.
        """
        held_until = time.monotonic() + LEASE_S
        while not (await asyncio.wait([training], timeout=self._renew_s))[0]:
            try:
                if not await self._store.renew_job(job.id, self.holder, LEASE_S):
                    log.info("portrait job %d was deleted or taken over", job.id)
                    return False
                held_until = time.monotonic() + LEASE_S
            except SDAPIError as error:
                log.warning("the lease of portrait job %d is not renewed: %s", job.id, error)
                if time.monotonic() > held_until:
                    raise
        return True

    async def _release(self) -> None:
        """Let go of jobs that were not ended, uncounted; raises SDAPIError."""
        while self._to_release:
            number = next(iter(self._to_release))
            await self._store.release_job(number, self.holder)
            self._to_release.discard(number)

    async def _settle(self, job: Job, end: _End) -> None:
        """Write down the end, as often as it takes: it is known nowhere else."""
        while True:
            try:
                await self._finish(job, end)
                return
            except SDAPIError as error:
                log.warning("the end of portrait job %d is not stored: %s", job.id, error)
            try:
                await asyncio.sleep(_RETRY_S)
            except asyncio.CancelledError:
                with suppress(TimeoutError, SDAPIError):
                    async with asyncio.timeout(_LAST_TRY_S):
                        await self._finish(job, end)
                raise

    async def _finish(self, job: Job, end: _End) -> None:
        if not await self._store.finish_job(job.id, self.holder, end.outcome):
            await self._forget_deleted(job)
        elif end.settle is not None:
            await end.settle()

    async def _forget_deleted(self, job: Job) -> None:
        """Delete what was made for a model that was deleted while it was trained."""
        try:
            if await self._store.job(job.owner, job.id) is None:
                await self._forget(job.owner, job.model_id)
        except SDAPIError:
            log.exception("files of the deleted model %s may be left", job.model_id)

    async def _outcome(self, job: Job) -> _End:
        started = time.perf_counter()
        try:
            if job.attempts > MAX_ATTEMPTS:
                raise PortraitError(faults.NO_WEIGHTS)
            request = TrainRequest.from_json(job.request)
            trained = await self._trainer.train(job.owner, job.model_id, request)
        except PASSING:
            raise
        except PortraitError as error:
            return _End(jobs.failed(error.fault, is_corrected=self._is_corrected))
        except Exception:  # the contract has no text for what nobody has foreseen
            log.exception("portrait job %d failed", job.id)
            return _End(jobs.failed(faults.NO_WEIGHTS, is_corrected=self._is_corrected))
        cost_s = time.perf_counter() - started
        outcome = jobs.succeeded(job.model_id, trained.states, cost_s, trained.about)
        return _End(outcome, trained.settle)


async def _ended(training: asyncio.Future[_End]) -> None:
    """Cancel a training, and wait until it has put away what it takes to go on."""
    training.cancel()
    await asyncio.wait([training])
    if not training.cancelled():
        training.exception()  # somebody has seen it
