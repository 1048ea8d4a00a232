"""Every error a client may see, and the status it answers with.

    SDAPIError                      500 internal_error
    ├── BadRequest                  422 bad_request        a bad value; names it and the valid ones
    │   ├── UnknownName             422 unknown_name       a model, scheduler, option … not there
    │   │   └── UnknownSampler      400 sampler_not_found
    │   ├── AnnotatorMissing        422 annotator_missing  a preprocessor's weights are not there
    │   ├── BadImage                422 invalid_image      bytes that are no picture
    │   ├── BadUrl                  422 invalid_url        a URL that may not or cannot be fetched
    │   ├── UnreadableBody          400 unreadable_body    a body that no JSON reader takes
    │   └── PathNotAllowed          403 path_not_allowed   outside every allowed root
    ├── Unauthorized                401 unauthorized
    ├── Missing                     404 not_found          the declared 404s of the webui API
    ├── Conflict                    409 conflict
    ├── QueueFull                   429 queue_full
    ├── ModelUnusable               422 model_unusable     a file that is there and cannot be loaded
    │   └── ModelUnreadable         422 model_unusable     the same, and it may pass: gone, I/O
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
    ├── DefaultModelUnusable        503 default_model_unusable  as the first, but nobody named it
    ├── TimedOut                    503 timed_out          a wait that came to its end
    ├── NoDevice                    503 no_device          nothing to draw on
    ├── NoProcess                   503 no_process         no process for the work can be started
    └── ShuttingDown                503 shutting_down

The wire shape is `design` 3a's: `{"error", "detail", "body", "errors", "code", "request_id"}`; see
`sdapi.problems`. Where `detail` is a text of the webui's that names no field, a key `hint` does.
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

    def __init__(self, detail: str, *, place: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        #: the field, where the text is the webui's and does not name it
        self.place = place

    @property
    def sentence(self) -> str:
        """The text, with the field where that is not in it."""
        return f"{self.place}: {self.detail}" if self.place else self.detail


class BadRequest(SDAPIError):
    """A value that cannot be used; the text names it and what would be right."""

    status, code = 422, "bad_request"


class UnknownName(BadRequest):
    """A model, scheduler, option or the like that is not there; the text names the near ones."""

    status, code = 422, "unknown_name"


class UnknownSampler(UnknownName):
    """A sampler that is not there: the webui declares a 400 for it."""

    status, code = 400, "sampler_not_found"


class AnnotatorMissing(BadRequest):
    """A preprocessor whose weights are not on disk; the text names the file."""

    status, code = 422, "annotator_missing"


class BadImage(BadRequest):
    """Bytes that are no picture."""

    status, code = 422, "invalid_image"


class BadUrl(BadRequest):
    """A URL that may not, or cannot, be fetched; the text tells no query and no address."""

    status, code = 422, "invalid_url"


class UnreadableBody(BadRequest):
    """A body that a JSON reader gives up on, apart from bad syntax, which has a place."""

    status, code = 400, "unreadable_body"


class PathNotAllowed(BadRequest):
    """A path or an object's URL outside every place that the server may use."""

    status, code = 403, "path_not_allowed"


class Unauthorized(SDAPIError):
    """No credentials, or wrong ones."""

    status, code = 401, "unauthorized"


class Missing(SDAPIError):
    """What a request did not bring, or asks for and is not there: the declared 404s."""

    status, code = 404, "not_found"


class Conflict(SDAPIError):
    """An id that is in use."""

    status, code = 409, "conflict"


class QueueFull(SDAPIError):
    """As many jobs wait as may."""

    status, code = 429, "queue_full"
    retry_after_s = 5


class ModelUnusable(SDAPIError):
    """A model's file that is there and cannot be loaded; the text names file and reason."""

    status, code = 422, "model_unusable"


class ModelUnreadable(ModelUnusable):
    """One that is gone or cannot be read now: it may be again, without a change of the file."""


class NotBuilt(SDAPIError):
    """A field or route that is known, and whose feature is not there."""

    status, code = 501, "not_implemented"


class StorageFailed(SDAPIError):
    """A file that could not be written: a full disk and the like."""

    status, code = 507, "storage_failed"


class OutboxFull(SDAPIError):
    """As much waits for its upload as may."""

    status, code = 503, "outbox_full"
    retry_after_s = 30


class UploadPending(SDAPIError):
    """Files that are stored on disk and named, and not yet in their object store."""

    status, code = 502, "upload_pending"


class StoreUnavailable(SDAPIError):
    """An object store that gives no answer; the same request may succeed later."""

    status, code = 503, "store_unavailable"
    retry_after_s = 10
    was_tried = True


class StoreRefused(SDAPIError):
    """An object store that refuses the server's keys or its clock."""

    status, code = 502, "store_refused"


class OutOfMemory(SDAPIError):
    """A job that did not fit into the device's memory."""

    status, code = 507, "out_of_memory"


class NanProduced(SDAPIError):
    """A model that made NaNs where numbers belong."""

    status, code = 500, "nan_produced"


class NoCheckpoint(SDAPIError):
    """No checkpoint to draw with; the text names the folder to fill."""

    status, code = 503, "no_checkpoint"


class NoModel(SDAPIError):
    """A model of another kind that is not on disk; the text names the file."""

    status, code = 503, "no_model"


class DefaultModelUnusable(SDAPIError):
    status, code = 503, "default_model_unusable"


class TaskCancelled(SDAPIError):
    """A task that was cancelled before it began."""

    status, code = 409, "cancelled"


class TimedOut(SDAPIError):
    """A wait that came to its end."""

    status, code = 503, "timed_out"
    retry_after_s = 10
    was_tried = True


class NoDevice(SDAPIError):
    """No device to draw on, or its worker could not start."""

    status, code = 503, "no_device"
    retry_after_s = 30


class NoProcess(SDAPIError):
    """The system refuses another process, as it does while memory or files are short."""

    status, code = 503, "no_process"
    retry_after_s = 10


class ShuttingDown(SDAPIError):
    """A server that stops, and takes nothing new."""

    status, code = 503, "shutting_down"
    retry_after_s = 10


def near_names(name: str, known: Iterable[str], limit: int = 5) -> str:
    """A sentence part: the known names nearest to `name`, or the first few when none is near."""
    names = list(dict.fromkeys(known))
    near = get_close_matches(name, names, n=limit, cutoff=0.4)
    near += [other for other in names if other not in near][: limit - len(near)]
    return ", ".join(repr(n) for n in near) if near else "none"
