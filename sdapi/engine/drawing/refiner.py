"""The refiner of a pass: loaded when it is due, kept until the pass's latent is decoded.

Contract: webui-generation 12.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sdapi.engine.drawing.pass_plan import Model, PassPlan
from sdapi.engine.jobs.job import Job, Refiner
from sdapi.engine.sampling.handover import Handover, Successor
from sdapi.engine.sampling.sampling_pass import planned_calls
from sdapi.errors import ModelUnusable


@dataclass(slots=True)
class Relief:
    """Takes over from the first model of a pass; `model` is there once it has."""

    plan: PassPlan
    first: Model
    #: lends the refiner until the batch is decoded
    lend: Callable[[], Model]
    model: Model | None = None

    def take_over(self) -> Successor:
        """Load the refiner and encode the prompts with it; raises `ModelUnusable`."""
        model = self.model = self.lend()
        new, old = model.components, self.first.components
        if new.unet.config["in_channels"] != old.unet.config["in_channels"]:
            raise ModelUnusable(
                "refiner_checkpoint: it takes other inputs than the checkpoint it takes over from"
            )
        return Successor(
            self.plan.predictor(model),
            self.plan.cond(model),
            self.plan.alphas(model),
            new.v_prediction,
        )


def handover(job: Job, plan: PassPlan, relief: Relief) -> Handover | None:
    """When the refiner of a job takes over in one of its passes; None: there is nothing to watch.

    Option `refiner_switch_by_sample_steps` is told of every picture, with a refiner or without.
    """
    refiner, counts_calls = job.refiner, job.options.refiner_counts_calls
    comes = refiner is not None and _comes(refiner, job, plan)
    if not comes and not counts_calls:
        return None
    return Handover(
        relief.take_over if comes else None,
        refiner.switch_at if refiner else None,
        planned_calls(plan.job, plan.start) if counts_calls else None,
        _keys(refiner, job) if refiner else {},
        plan.extra,
    )


def _comes(refiner: Refiner, job: Job, plan: PassPlan) -> bool:
    if refiner.checkpoint == plan.job.checkpoint:
        return False
    if job.hires is None:
        return True
    return refiner.in_second_pass if plan.is_second else refiner.in_first_pass


def _keys(refiner: Refiner, job: Job) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    if job.hires is not None and refiner.in_first_pass:
        keys["Hires refiner"] = "both passes" if refiner.in_second_pass else "first pass"
    return keys | {"Refiner": refiner.title, "Refiner switch at": refiner.switch_at}
