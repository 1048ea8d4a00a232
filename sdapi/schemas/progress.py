"""How far the running job is."""

from pydantic import BaseModel, Field

from sdapi.schemas.coercion import Bool, Int, Str


class ProgressState(BaseModel):
    """The running job's counters; idle when `job_count` is 0."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = Field(default="", examples=["scripts_txt2img"])
    job_count: int = Field(
        default=0, description="Passes: iterations, doubled by hires fix; -1: starting"
    )
    job_timestamp: str = Field(default="0", description="Start, YYYYMMDDHHMMSS")
    job_no: int = Field(default=0, description="Passes done")
    sampling_step: int = 0
    sampling_steps: int = 0


class ProgressResponse(BaseModel):
    """`GET /sdapi/v1/progress`."""

    progress: float = Field(
        description="0 to 1; 0 when idle, 1 for an `id_task` that is done", examples=[0.42]
    )
    eta_relative: float = Field(description="Seconds left; 0 when idle")
    state: ProgressState
    current_image: str | None = Field(default=None, description="Preview in base64 without prefix")
    textinfo: str | None = Field(
        default=None,
        description="What is worked on; of an `id_task` that is over or unknown, that it is",
        examples=["task done"],
    )


class InternalProgressRequest(BaseModel):
    """`POST /internal/progress`."""

    id_task: Str | None = Field(default=None, description="The task asked about")
    id_live_preview: Int = Field(default=-1, description="The last preview the caller has")
    live_preview: Bool = Field(default=True, description="Whether to send a newer one")


class InternalProgressResponse(BaseModel):
    """The answer of `POST /internal/progress`."""

    active: bool
    queued: bool
    completed: bool
    progress: float | None = None
    eta: float | None = None
    live_preview: str | None = Field(default=None, description="data: URI")
    id_live_preview: int | None = None
    textinfo: str | None = Field(default=None, examples=["In queue: 2/3"])


class TaskStatusResponse(BaseModel):
    """A task at one moment; what `/progress/events` and `/progress/ws` send, too."""

    id_task: str
    kind: str = Field(examples=["txt2img"])
    state: str = Field(
        description="queued, running, done, failed, or cancelled: before it began or while it ran"
    )
    progress: float = Field(description="0 to 1")
    eta_s: float | None = Field(description="Seconds left; null while nothing can be said")
    queue_position: int | None = Field(description="Tasks before it; null when it does not wait")
    job_no: int = Field(description="Passes done")
    job_count: int = Field(description="Passes of all its batches")
    sampling_step: int
    sampling_steps: int
    uid: str | None
    error: str | None = Field(description="Why it failed or was cancelled")
