"""Feeds inference: takes items of a service's input queue, calls, and stores what comes back."""

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlencode

from sdapi.errors import FINAL_HEADER, TRIED_HEADER
from sdapi.logs import log_fields
from sdapi.queue.config.spec import Program, ServiceSpec
from sdapi.queue.dispatching.explanations import explained
from sdapi.queue.dispatching.inference import Answer, Call, Inference, NotUp, failure
from sdapi.queue.going_on import GoingOn
from sdapi.queue.service import SINK_TIME, SOURCE_TIME, Address, Identity, QueueService
from sdapi.queue.stores.store import LAST_CODE, REQUEST_ID, Delivery, Item, NewItem
from sdapi.queue.watching import Subscription

log = logging.getLogger(__name__)

#: between looks for an inference program that is not up, and tries of a store that is away
_RETRY_S = 0.5
#: for a store that is away while the server stops
_LAST_TRY_S = 5.0
#: before an item that failed, or was refused because too much waits, is handed out again
_PAUSE_S = 1.0
#: statuses that may pass, though they look like the caller's mistake
_PASSING = (408, 429)
_OWN_TAGS = (REQUEST_ID, SOURCE_TIME, SINK_TIME)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of an item: a result (None for none), or back with or without being counted."""

    is_final: bool
    result: NewItem | None = None
    counts: bool = True
    code: int = 0


class Dispatcher:
    """One inference instance: a consumer of the input queue with `worker_threads` places."""

    def __init__(self, service: QueueService, spec: ServiceSpec, inference: Inference) -> None:
        self._service = service
        self._spec = spec
        self._inference = inference
        self._address = Address(spec, spec.source_queue)
        self._identity = Identity(spec.name, _pod_name(spec))
        #: a program of this server, whose refusals are no deliveries (contract 10.3)
        self._is_ours = spec.container.program is not Program.OTHER
        #: the store's places are not enough: one is free as soon as a running item is deleted
        self._threads = asyncio.Semaphore(spec.worker_threads)
        self._jobs: set[asyncio.Task[None]] = set()
        #: what is being written down; no end of a job may cut it off
        self._settling: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        #: while the server stops
        self._retiring: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._is_abandoned = False
        #: it was told that the program does not answer
        self._is_missed = False
        #: the program takes no calls: what is handed out meanwhile goes back uncounted
        self._is_down = asyncio.Event()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"dispatch {self._spec.name}")

    async def drain(self) -> None:
        """Take nothing more, and wait for what runs; not for a store that is away meanwhile."""
        self._is_stopping = True
        if self._retiring is None:
            self._retiring = asyncio.create_task(self._retire())
        while self._jobs:
            await asyncio.wait(self._jobs)

    def abandon(self) -> None:
        """Stop what runs; its items go back as if they had not been delivered."""
        if not self._is_abandoned:
            self._is_stopping = self._is_abandoned = True
            for job in self._jobs:
                job.cancel()

    async def close(self) -> None:
        """End, with everything given back."""
        self.abandon()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        if self._settling:
            _, unwritten = await asyncio.wait(self._settling, timeout=_LAST_TRY_S)
            for each in unwritten:
                each.cancel()
        for task in (self._retiring, self._task):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._is_stopping:
            with GoingOn(f"service {self._spec.name} cannot take items now"):
                if await self._is_up():
                    await self._consume()
            await asyncio.sleep(_RETRY_S)

    async def _is_up(self) -> bool:
        """Whether the program takes calls; that it does not is told once."""
        is_ready = await self._inference.is_ready()
        if is_ready and self._is_missed:
            log.info("service %s: its program answers", self._spec.name)
        elif not is_ready and not self._is_missed and not self._is_ours:
            port = self._spec.container.port
            log.warning(
                "service %s: nothing answers on port %s; its items wait", self._spec.name, port
            )
        self._is_missed = not is_ready
        return is_ready

    def _stand_down(self, error: NotUp) -> None:
        """Let items wait where they are until the program is there again (contract 11)."""
        if self._is_down.is_set():
            return
        self._is_down.set()
        self._is_missed = True
        log.warning("service %s: %s; its items wait", self._spec.name, error)

    async def _consume(self) -> None:
        """Work as a consumer until the connection is lost, or the program."""
        self._is_down.clear()
        async with self._service.subscribe(
            self._address, self._identity, window=self._spec.worker_threads
        ) as subscription:
            leaving = asyncio.create_task(self._leave_when_down(subscription))
            try:
                await self._work_on(subscription)
            finally:
                leaving.cancel()
        # Taken for dead: others have these items now, and what is drawn here would be drawn twice.
        for job in self._jobs:
            job.cancel()

    async def _leave_when_down(self, subscription: Subscription) -> None:
        """End the subscription once nothing runs on a program that takes no calls any more."""
        await self._is_down.wait()
        await self._retire()
        while self._jobs:
            await asyncio.wait(self._jobs)
            await asyncio.sleep(_RETRY_S)  # what was on its way here comes, and goes back
        subscription.close()

    async def _retire(self) -> None:
        """Be handed nothing more: until the store knows, items come and go back without an end."""
        while True:
            with GoingOn(f"service {self._spec.name} cannot stand down now"):
                await self._service.reject(self._address.queue, self._identity, [], "Shutdown")
                return
            await asyncio.sleep(_RETRY_S)

    async def _work_on(self, subscription: Subscription) -> None:
        async for batch in subscription.batches():
            for delivery in batch:
                job = asyncio.create_task(self._work(delivery))
                self._jobs.add(job)
                job.add_done_callback(self._jobs.discard)

    async def _work(self, delivery: Delivery) -> None:
        item = delivery.item
        with log_fields(service=self._spec.name, queue_index=item.index):
            try:
                async with self._threads:
                    outcome = await self._outcome(item)
                if not outcome.is_final and not self._is_stopping:
                    await asyncio.sleep(_PAUSE_S)
            except asyncio.CancelledError:
                outcome = Outcome(False, counts=False)
            settling = asyncio.create_task(self._settle(delivery, outcome))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)
            await asyncio.shield(settling)

    async def _outcome(self, item: Item) -> Outcome:
        if self._is_stopping or self._is_down.is_set():
            return Outcome(False, counts=False)
        try:
            async with asyncio.timeout(self._spec.keepalive_s):
                answer = explained(item, self._spec, await self._inference.call(call_of(item)))
        except TimeoutError:
            answer = failure(408, f"not done within {self._spec.keepalive_s:g} s")
        except NotUp as error:
            self._stand_down(error)
            return Outcome(False, counts=False)
        except ConnectionError as error:  # the last one makes a dead letter (contract 11)
            log.warning("the inference program went away: %s", error)
            return Outcome(False, code=502)
        except Exception as error:
            log.exception("an inference call failed")
            answer = failure(500, type(error).__name__)
        return self._judge(item, answer)

    def _judge(self, item: Item, answer: Answer) -> Outcome:
        """Result, another try, or back uncounted (contract 10.3 and 11)."""
        if answer.is_success:
            return Outcome(True, self._result(item, answer) if answer.body else None)
        was_refused = answer.status in (429, 503) and "retry-after" in answer.headers
        if was_refused and self._is_ours and TRIED_HEADER not in answer.headers:
            return Outcome(False, counts=False)  # our own server had no place for it
        is_callers = 400 <= answer.status < 500 and answer.status not in _PASSING
        limit = self._spec.max_delivery
        is_last = 0 < limit <= item.deliveries
        if is_callers or is_last or FINAL_HEADER in answer.headers:
            return Outcome(True, self._result(item, answer))
        return Outcome(False, code=answer.status)

    def _result(self, item: Item, answer: Answer) -> NewItem:
        limit = self._spec.sink.max_payload_bytes
        if len(answer.body) > limit:
            answer = failure(
                413, f"the result has {len(answer.body)} bytes; this queue takes {limit}"
            )
        tags = {key: value for key, value in item.tags.items() if key != LAST_CODE}
        tags[SINK_TIME] = str(time.time_ns() // 1_000_000)
        if not answer.is_success:
            tags[LAST_CODE] = str(answer.status)
        return NewItem(item.request_id, tags, answer.body, content_type=answer.content_type)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Write it down, as often as it takes: the result exists nowhere else."""
        while True:
            with GoingOn("cannot store what became of an item"):
                if not await self._write(delivery, outcome):
                    log.warning("the item was deleted, or another worker has it: this is dropped")
                return
            await asyncio.sleep(_RETRY_S)

    async def _write(self, delivery: Delivery, outcome: Outcome) -> bool:
        store, queue, group = self._service.store, self._address.queue, self._spec.name
        index, fence = delivery.item.index, delivery.fence
        if outcome.is_final:
            room = self._spec.room_of_results
            return await store.finish(queue, group, index, fence, outcome.result, room=room)
        return await store.release(
            queue, group, index, fence, counts=outcome.counts, code=outcome.code
        )


def call_of(item: Item) -> Call:
    """The call that an item stands for: its path, the caller's tags, its data unchanged."""
    query = urlencode({k: v for k, v in item.tags.items() if k not in _OWN_TAGS})
    return Call(item.path or "/", query, _content_type(item), item.data)


def _content_type(item: Item) -> str:
    """Clients send JSON without a type, or as a form; strict frameworks refuse that."""
    plain = item.content_type.partition(";")[0].strip().lower()
    is_unsaid = plain in ("", "application/x-www-form-urlencoded", "application/octet-stream")
    if is_unsaid and item.data.lstrip()[:1] in (b"{", b"["):
        return "application/json"
    return item.content_type


def _pod_name(spec: ServiceSpec) -> str:
    """As the original names its instances: `<service>-<8 hex>-<hash>-<5 characters>`."""
    return f"{spec.dashed}-{spec.mark}-{secrets.token_hex(5)}-{secrets.token_hex(3)[:5]}"
