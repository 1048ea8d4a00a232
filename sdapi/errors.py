"""Every error a client may see, and the status it answers with.

    SDAPIError                      500 internal_error
    ├── BadRequest                  422 bad_request        a bad value; names it and the valid ones
    │   ├── UnknownName             422 unknown_name       a model, scheduler, option … not there
    │   │   └── UnknownSampler      400 sampler_not_found
    │   ├── AnnotatorMissing        422 annotator_missing  a preprocessor's weights are not there
    │   ├── BadImage                422 invalid_image      bytes that are no picture
    │   ├── BadUrl                  422 invalid_url        a URL that may not or cannot be fetched
    │   └── PathNotAllowed          403 path_not_allowed   outside every allowed root
    ├── Unauthorized                401 unauthorized
    ├── Missing                     404 not_found          the declared 404s of the webui API
    ├── Conflict                    409 conflict
    ├── QueueFull                   429 queue_full
    ├── ModelUnusable               422 model_unusable     a file that is there and cannot be loaded
    ├── NotBuilt                    501 not_implemented    a field whose feature has not landed
    ├── StorageFailed               507 storage_failed     disk full and the like
    ├── OutboxFull                  503 outbox_full        too much waits for an object store
    ├── UploadPending               502 upload_pending     stored here, not yet in the object store
    ├── StoreUnavailable            503 store_unavailable  an object store gives no answer
    ├── StoreRefused                502 store_refused      an object store refuses the server's keys
    ├── OutOfMemory                 507 out_of_memory
    ├── NanProduced                 500 nan_produced       the model made NaNs
    ├── TaskCancelled               409 cancelled          the task was cancelled before it began
    ├── NoCheckpoint                503 no_checkpoint      nothing to draw with
    ├── NoModel                     503 no_model           a model file of another kind is not there
    ├── TimedOut                    503 timed_out          a wait that came to its end
    ├── NoDevice                    503 no_device          nothing to draw on
    └── ShuttingDown                503 shutting_down

The wire shape is `design` 3a's: `{"error", "detail", "body", "errors", "code", "request_id"}`; see
`sdapi.problems`.
"""

from collections.abc import Iterable
from difflib import get_close_matches

#: an answer with this header is the last word, whatever its status: a queue does not try again
FINAL_HEADER = "x-sdapi-final"
#: a 503 with this header came after work was begun: a queue counts it as a delivery that failed
TRIED_HEADER = "x-sdapi-tried"


class SDAPIError(Exception):
    """Base of every error a client may see; the text is for the client."""

    status = 500
    code = "internal_error"
    #: seconds for a Retry-After header, when waiting helps
    retry_after_s: int | None = None
    #: whether the request was begun, though it may be sent again
    was_tried = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(SDAPIError):
    status, code = 422, "bad_request"


class UnknownName(BadRequest):
    status, code = 422, "unknown_name"


class UnknownSampler(UnknownName):
    status, code = 400, "sampler_not_found"


class AnnotatorMissing(BadRequest):
    status, code = 422, "annotator_missing"


class BadImage(BadRequest):
    status, code = 422, "invalid_image"


class BadUrl(BadRequest):
    status, code = 422, "invalid_url"


class PathNotAllowed(BadRequest):
    status, code = 403, "path_not_allowed"


class Unauthorized(SDAPIError):
    status, code = 401, "unauthorized"


class Missing(SDAPIError):
    status, code = 404, "not_found"


class Conflict(SDAPIError):
    status, code = 409, "conflict"


class QueueFull(SDAPIError):
    status, code = 429, "queue_full"
    retry_after_s = 5


class ModelUnusable(SDAPIError):
    status, code = 422, "model_unusable"


class NotBuilt(SDAPIError):
    status, code = 501, "not_implemented"


class StorageFailed(SDAPIError):
    status, code = 507, "storage_failed"


class OutboxFull(SDAPIError):
    status, code = 503, "outbox_full"
    retry_after_s = 30


class UploadPending(SDAPIError):
    status, code = 502, "upload_pending"


class StoreUnavailable(SDAPIError):
    status, code = 503, "store_unavailable"
    retry_after_s = 10
    was_tried = True


class StoreRefused(SDAPIError):
    status, code = 502, "store_refused"


class OutOfMemory(SDAPIError):
    status, code = 507, "out_of_memory"


class NanProduced(SDAPIError):
    status, code = 500, "nan_produced"


class NoCheckpoint(SDAPIError):
    status, code = 503, "no_checkpoint"


class NoModel(SDAPIError):
    status, code = 503, "no_model"


class TaskCancelled(SDAPIError):
    status, code = 409, "cancelled"


class TimedOut(SDAPIError):
    status, code = 503, "timed_out"
    retry_after_s = 10
    was_tried = True


class NoDevice(SDAPIError):
    status, code = 503, "no_device"
    retry_after_s = 30


class ShuttingDown(SDAPIError):
    status, code = 503, "shutting_down"
    retry_after_s = 10


def near_names(name: str, known: Iterable[str], limit: int = 5) -> str:
    """A sentence part: the known names nearest to `name`, or the first few when none is near."""
    names = list(dict.fromkeys(known))
    near = get_close_matches(name, names, n=limit, cutoff=0.4)
    near += [other for other in names if other not in near][: limit - len(near)]
    return ", ".join(repr(n) for n in near) if near else "none"
