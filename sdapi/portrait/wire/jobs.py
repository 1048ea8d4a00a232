"""Jobs as the REST surface shows them."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from sdapi.portrait.faults import Fault
from sdapi.portrait.state.records import Job, Outcome

#: the API's documents show China's time, on servers everywhere
_ZONE: Final = timezone(timedelta(hours=8))


def job_on_wire(job: Job, app_id: str) -> dict[str, Any]:
    """The `job` object. `Result` has its capital: two of the clients need it."""
    return {
        "id": job.id,
        "app_id": app_id,
        "state": int(job.state),
        "message": job.message,
        "create_time": local_time(job.created_s),
        "Result": job.result,
        "type": "Image",
    }


def local_time(created_s: float) -> str:
    """`2023-08-22T16:43:35.36+08:00`: milliseconds without zeros at the end."""
    # Rounded as a whole: parts rounded apart could make 59.9996 into 59.1000.
    at = datetime.fromtimestamp(round(created_s * 1000) // 1000, UTC).astimezone(_ZONE)
    fraction = f".{round(created_s * 1000) % 1000:03d}".rstrip("0").rstrip(".")
    return f"{at:%Y-%m-%dT%H:%M:%S}{fraction}+08:00"


def failed(fault: Fault, *, is_corrected: bool) -> Outcome:
    """A job that ended with a fault; its status stands in the result, never in HTTP's."""
    message = fault.message(is_corrected=is_corrected)
    result = {"status": fault.status, "code": fault.code, "message": message}
    return Outcome(message, json.dumps(result, separators=(",", ":")))


def succeeded(
    model_id: str, states: list[dict[str, Any]], cost_time_s: float, model: dict[str, Any]
) -> Outcome:
    """A job that made a model; `states` are the photos' check results."""
    result = {"cost_time": cost_time_s, "states": states, "model_id": model_id}
    text = json.dumps(result, separators=(",", ":"), ensure_ascii=False)
    return Outcome("success", text, model)
