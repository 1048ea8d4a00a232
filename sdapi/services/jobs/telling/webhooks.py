"""Tells a URL that a task is over: signed, retried, and only where a fetch might go, too.

The body is the task's status as JSON. `X-SDAPI-Timestamp` is when it was signed, and
`X-SDAPI-Signature` is `sha256=` and the HMAC of `<timestamp>.<body>` under `--webhook-secret`.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from dataclasses import asdict, dataclass, field

import orjson

from sdapi.errors import BadRequest, BadUrl, QueueFull
from sdapi.services.fetching.fetcher import Fetcher, without_secrets
from sdapi.services.jobs.scheduler import Scheduler
from sdapi.services.jobs.tasks import Task
from sdapi.services.jobs.telling.status import status_of
from sdapi.settings import Settings

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_MAX_URL = 2000
#: seconds before each further attempt
DELAYS_S = (1.0, 5.0, 30.0, 120.0)


@dataclass(slots=True)
class Webhooks:
    """Sends the statuses of ended tasks. Belongs to the event loop."""

    settings: Settings
    fetcher: Fetcher
    scheduler: Scheduler
    delays_s: tuple[float, ...] = DELAYS_S
    #: notifications that are being sent, or wait to be sent again
    limit: int = 1000
    #: what is being sent; asyncio itself keeps no hold of it
    _sending: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    async def check(self, url: str) -> None:
        """Refuse a URL before its request is accepted; raises `BadRequest` or `QueueFull`."""
        if self.settings.webhook_secret is None:
            raise BadRequest("webhook: there are none; start the server with --webhook-secret")
        if len(self._sending) >= self.limit:
            raise QueueFull(f"webhook: {len(self._sending)} are not delivered yet; try later")
        if len(url) > _MAX_URL:
            raise BadRequest(f"webhook: the URL is longer than {_MAX_URL} characters")
        if not url.startswith("https://") and not self.settings.allow_http_webhooks:
            raise BadUrl(f"webhook: {without_secrets(url)} is not https")
        await self.fetcher.check(url)

    def tell(self, task: Task, url: str) -> None:
        """Send the task's status as it is now, in the background."""
        sending = asyncio.get_running_loop().create_task(self._send(task, url))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send(self, task: Task, url: str) -> None:
        body = orjson.dumps(asdict(status_of(task, self.scheduler)))
        shown = without_secrets(url)
        for delay_s in (*self.delays_s, None):
            try:
                status = await self.fetcher.post(
                    url, body, self._headers(body), timeout_s=_TIMEOUT_S
                )
                if 200 <= status < 300:
                    return
                problem = f"answered {status}"
                if 400 <= status < 500 and status != 429:
                    delay_s = None  # it does not want it
            except BadUrl as error:
                problem = str(error)
            if delay_s is None:
                log.warning("webhook of task %s not delivered to %s: %s", task.id, shown, problem)
                return
            await asyncio.sleep(delay_s)

    def _headers(self, body: bytes) -> dict[str, str]:
        moment = str(int(time.time()))
        key = (self.settings.webhook_secret or "").encode()
        signature = hmac.new(key, f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
        return {"x-sdapi-timestamp": moment, "x-sdapi-signature": f"sha256={signature}"}
