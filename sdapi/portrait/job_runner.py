"""Runs the jobs of the REST surface, one at a time on each server."""

import asyncio
import logging
import time
import uuid
from contextlib import suppress
from typing import Final

from sdapi.errors import SDAPIError, ShuttingDown
from sdapi.portrait import faults, jobs
from sdapi.portrait.faults import PortraitError
from sdapi.portrait.handlers import Trainer
from sdapi.portrait.records import Job, Outcome
from sdapi.portrait.requests import TrainRequest
from sdapi.portrait.store import PortraitStore

LEASE_S: Final = 60.0
_RENEW_S: Final = 15.0
#: jobs of other servers are looked for this often
_POLL_S: Final = 5.0
#: a job that ended its server this often is not begun again
MAX_ATTEMPTS: Final = 3
log = logging.getLogger(__name__)


class JobRunner:
    """Claims jobs from the store and hands them to the trainer."""

    def __init__(self, store: PortraitStore, trainer: Trainer, *, is_corrected: bool) -> None:
        self._store = store
        self._trainer = trainer
        self._is_corrected = is_corrected
        self._holder = uuid.uuid4().hex
        self._new = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """A job has been added."""
        self._new.set()

    async def close(self) -> None:
        """Stop; a job that runs is taken over when its lease ends."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            self._new.clear()
            try:
                job = await self._store.claim_job(self._holder, LEASE_S)
                if job is not None:
                    await self._do(job)
                    continue
            except ShuttingDown:
                return  # the job is taken over when its lease ends
            except SDAPIError:
                log.exception("the portrait jobs cannot be read")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._new.wait(), _POLL_S)

    async def _do(self, job: Job) -> None:
        """Train while the lease is held; a job that was deleted meanwhile is given up."""
        training = asyncio.ensure_future(self._outcome(job))
        try:
            while not (await asyncio.wait([training], timeout=_RENEW_S))[0]:
                if not await self._store.renew_job(job.id, self._holder, LEASE_S):
                    log.info("portrait job %d was deleted or taken over", job.id)
                    return
            await self._store.finish_job(job.id, self._holder, training.result())
        finally:
            training.cancel()
            with suppress(asyncio.CancelledError):
                await training

    async def _outcome(self, job: Job) -> Outcome:
        started = time.perf_counter()
        try:
            if job.attempts > MAX_ATTEMPTS:
                raise PortraitError(faults.NO_WEIGHTS)
            request = TrainRequest.from_json(job.request)
            trained = await self._trainer.train(job.owner, job.model_id, request)
        except ShuttingDown:
            raise
        except PortraitError as error:
            return jobs.failed(error.fault, is_corrected=self._is_corrected)
        except Exception:
            log.exception("portrait job %d failed", job.id)
            return jobs.failed(faults.NO_WEIGHTS, is_corrected=self._is_corrected)
        cost_s = time.perf_counter() - started
        return jobs.succeeded(job.model_id, trained.states, cost_s, trained.about)
