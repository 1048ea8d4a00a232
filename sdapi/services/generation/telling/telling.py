"""What an answer tells of what was drawn, and how long it took."""

import logging
import time
from dataclasses import dataclass
from datetime import datetime

from sdapi.engine.jobs.job import Result
from sdapi.metrics import Metrics
from sdapi.services.catalog.catalog import Catalog
from sdapi.services.catalog.model_files.hashes import HASH_WAIT_S, HashCache
from sdapi.services.catalog.networks import NetworkCatalog
from sdapi.services.generation.drafting.draft import Draft
from sdapi.services.generation.drafting.network_files import told_hashes
from sdapi.services.generation.order import Order
from sdapi.services.generation.telling.generation_info import GenerationInfo
from sdapi.services.jobs.tasks import Task
from sdapi.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Telling:
    """Gathers what is told of results."""

    settings: Settings
    catalog: Catalog
    hashes: HashCache
    networks: NetworkCatalog
    metrics: Metrics

    async def info(self, order: Order, draft: Draft, result: Result) -> GenerationInfo:
        """What the answer to an order tells, with the hashes that are known soon enough."""
        request, options, task = order.request, order.options, order.task
        checkpoint, vae_hash = await self.catalog.hashed(draft.checkpoint), None
        if draft.vae is not None and not self.settings.no_hashing:
            sha256 = await self.hashes.wait(draft.vae.path, HASH_WAIT_S)
            vae_hash = sha256[:10] if sha256 else None
        begun = datetime.fromtimestamp(task.started or task.created)
        return GenerationInfo(
            job=draft.job,
            options=options,
            checkpoint=checkpoint,
            vae=draft.vae,
            vae_hash=vae_hash,
            styles=draft.styles,
            style_prompts=draft.style_prompts,
            extra=await self._extra(order, draft, result),
            job_timestamp=begun.strftime("%Y%m%d%H%M%S"),
            is_inpainting_model=result.is_inpainting_model,
            is_editing_model=result.is_editing_model,
            init_image_hash=draft.prepared.image_hash if draft.prepared else None,
            subseed_strength=request.subseed_strength or 0,
            seed_resize_from_w=_or_off(request.seed_resize_from_w),
            seed_resize_from_h=_or_off(request.seed_resize_from_h),
            user=order.caller.user,
        )

    async def _extra(self, order: Order, draft: Draft, result: Result) -> dict[str, object]:
        """The infotext keys of drafting and drawing, with hashes where they tell some."""
        wait_s = 0.0 if self.settings.no_hashing else HASH_WAIT_S
        keys = draft.keys | result.extra
        extra = await told_hashes(keys, draft.loras, self.networks, order.options, wait_s)
        if draft.refiner is not None and "Refiner" in extra:
            extra["Refiner"] = (await self.catalog.hashed(draft.refiner)).short_title
        return extra

    def times(self, task: Task, result: Result, started: float, drawn_at: float) -> None:
        """Count how long the answer took to make; with `--time-log` tell all phases.

        `started` and `drawn_at` are of `time.perf_counter`.
        """
        now = time.perf_counter()
        self.metrics.phase_seconds.labels("deliver").observe(now - drawn_at)
        if not self.settings.time_log:
            return
        phases = {
            "queue_s": (task.started or task.created) - task.created,
            "load_s": result.load_s,
            "sample_s": result.sample_s,
            "decode_s": result.decode_s,
            "deliver_s": now - drawn_at,
            "total_s": now - started,
        }
        log.info("request timed", extra={key: round(value, 4) for key, value in phases.items()})


def _or_off(side: int | None) -> int:
    """A side that seeds were chosen for; -1 where the request says null."""
    return -1 if side is None else side
