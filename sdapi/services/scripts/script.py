"""What a script is: one that runs with every generation, or one that a request chooses.

Both are objects made once; everything that belongs to one request is handed to their methods.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

from PIL.Image import Image
from pydantic import BaseModel

from sdapi.engine.jobs.job import Job, Result
from sdapi.engine.jobs.stages import Stages
from sdapi.engine.upscaling.upscaler import Upscaler
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.generation.pictures.variants import answered
from sdapi.services.scripts.arguments import NoArgs, describe_arguments

if TYPE_CHECKING:
    from sdapi.services.container import Services
    from sdapi.services.generation.pictures.img2img import InitInputs, PreparedInit
    from sdapi.services.generation.telling.generation_info import GenerationInfo

Kind = Literal["txt2img", "img2img"]
GenerationRequest = Txt2ImgRequest | Img2ImgRequest
BOTH: frozenset[Kind] = frozenset({"txt2img", "img2img"})
IMG2IMG_ONLY: frozenset[Kind] = frozenset({"img2img"})
#: begins the names of plain grids
GRID_PREFIX: Final = "grid"


class Listing(Enum):
    """Where a script's name is shown."""

    #: in `/scripts` in lower case, and in `/script-info`
    FULL = "full"
    #: in `/scripts` as it is spelled
    NAME = "name"
    #: nowhere, though requests may name it
    NOWHERE = "nowhere"


class _Described:
    """What both kinds of scripts say about themselves."""

    name: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]] = BOTH
    args: ClassVar[type[BaseModel]] = NoArgs
    listing: ClassVar[Listing] = Listing.FULL

    def describe(self, kind: Kind, services: "Services") -> list[dict[str, Any]]:
        """The arguments for `script-info`."""
        return describe_arguments(self.args, services)


@dataclass(frozen=True, slots=True)
class Preparation:
    """A request on its way to a job, as an always-on script sees it."""

    kind: Kind
    request: GenerationRequest
    options: Options
    services: "Services"
    #: infotext keys known before drawing, in order; a script adds its own
    keys: dict[str, Any]
    #: sentences for the answer's `warnings`
    warnings: list[str]
    #: a picture from base64, a data URI or a URL; blocks, raises `BadImage` or `BadUrl`.
    #: The second argument names the place in the request
    load_image: Callable[[str, str], Image]
    #: img2img's pictures as they were decoded, and what became of them
    inputs: "InitInputs | None" = None
    prepared: "PreparedInit | None" = None


class Script(_Described):
    """A script that runs with every generation of its kinds, in a thread where it may compute.

    A method that does not apply is left out. `SDAPIError`s go to the client. Any other exception
    fails the request when that named the script, else it is logged and told as a warning.
    """

    def overrides(self, args: Any, options: Options, kind: Kind) -> Mapping[str, Any]:
        """Options for this request, which its `override_settings` may override."""
        return {}

    def prepare(self, job: Job, args: Any, preparation: Preparation) -> Job:
        """The job as it should be; a new one, for a job cannot be changed."""
        return job

    def stages(self, job: Job, args: Any) -> Stages | None:
        """What to do while the job is drawn."""
        return None

    def read_infotext(self, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Parameters that an infotext's own say in other words, for `png-info`."""
        return {}


@dataclass(frozen=True, slots=True)
class Generated:
    """What one inner generation made; no pictures when the task was interrupted before it."""

    result: Result
    info: "GenerationInfo"
    #: where the request has several pictures and wants one
    grid: Image | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(each.image for each in self.result.images)

    def infotext(self, number: int = 0) -> str:
        """The infotext of the picture at a place of `images`."""
        images = self.result.images
        return self.info.infotext(images[number].index if images else 0)

    @property
    def pictures(self) -> list["ScriptPicture"]:
        """What an answer has of it but for the grid: images, masks, what always-on scripts add."""
        info = self.info
        shown = [
            ScriptPicture(each.image, is_extra=True)
            if each.suffix
            else ScriptPicture(each.image, info.infotext(each.index), info.job.seeds[each.index])
            for each in answered(self.result.images, info.options)
        ]
        added = (*self.result.extra_images, *self.result.detected_maps)
        return shown + [ScriptPicture(each, is_extra=True) for each in added]

    def answer(self) -> "ScriptResult":
        """The answer of one ordinary generation."""
        shown = [ScriptPicture(self.grid, self.infotext(), is_grid=True)] if self.grid else []
        pictures = [*shown, *self.pictures]
        told = [each.infotext for each in pictures if not each.is_extra]
        return ScriptResult(pictures, told, self.info, index_of_first_image=len(shown))


@dataclass(frozen=True, slots=True)
class ScriptPicture:
    """A picture for the answer; one without infotext carries none."""

    image: Image
    infotext: str | None = None
    seed: int = -1
    is_grid: bool = False
    #: a mask or detected map: no picture that was drawn
    is_extra: bool = False


@dataclass(frozen=True, slots=True)
class ScriptFile:
    """A picture to write, beside what inner generations write themselves."""

    image: Image
    infotext: str | None
    is_grid: bool = False
    #: begins the file's name, as in `xyz_grid-0001-…`; `GRID_PREFIX` for plain grids
    prefix: str = ""
    #: whose seed and prompt its name tells; None: the answer's
    info: "GenerationInfo | None" = None


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """What a selectable script answers with."""

    pictures: Sequence[ScriptPicture]
    #: as `info` lists them, composites among them
    infotexts: Sequence[str | None]
    #: the inner generation whose `info` the answer shows; None when there was none
    info: "GenerationInfo | None"
    #: entries of `info` that differ from it
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    index_of_first_image: int = 0
    files: Sequence[ScriptFile] = ()


class ScriptRun(Protocol):
    """A request that chose a script, and what the script can do with it.

    Inner generations wait in the queue like any other, under the request's task: one id, one
    progress, one cancellation. Always-on scripts run inside each of them.
    """

    @property
    def kind(self) -> Kind: ...

    @property
    def request(self) -> GenerationRequest:
        """With its `infotext` and EAS keys applied, and its pictures decoded; -1 is still -1.

        A script copies it (`model_copy`), and may put other PIL pictures there, `latent_mask` among
        them. `do_not_save_samples` and `do_not_save_grid` say what an inner generation writes
        itself; what the client sent there means nothing.
        """
        ...

    @property
    def options(self) -> Options:
        """The server's when the request came, with the request's over them."""
        ...

    @property
    def services(self) -> "Services": ...

    @property
    def is_interrupted(self) -> bool:
        """Whether to stop with what there is.

        A script asks before each generation, not after the last: with a yes its task is cancelled.
        """
        ...

    @property
    def is_skipped(self) -> bool:
        """Whether to go on with the next batch."""
        ...

    def plan(self, passes: int) -> None:
        """How many passes (batches, doubled by hires fix) progress is a share of."""
        ...

    async def load_image(self, source: Any, field: str) -> Image:
        """A picture of the request; raises `BadImage` or `BadUrl`."""
        ...

    def warn(self, text: str) -> None:
        """Add a sentence to the answer's `warnings`."""
        ...

    def texts(self, request: GenerationRequest) -> tuple[str, str]:
        """Prompt and negative prompt as its job has them: with styles, without comments. Blocks."""
        ...

    async def check(self, request: GenerationRequest) -> None:
        """Raise the `SDAPIError` that drawing a request would raise before it is queued.

        Always-on scripts have no say in it.
        """
        ...

    async def outline(self, request: GenerationRequest) -> "GenerationInfo":
        """What an answer would tell of a request, without drawing it; raises `SDAPIError`."""
        ...

    async def generate(
        self,
        request: GenerationRequest,
        *,
        change: Callable[[Job], Job] | None = None,
        keys: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        colours: Image | None = None,
    ) -> Generated:
        """Draw a request.

        `change` may alter its job, such as the prompts of single pictures, `keys` its infotext
        keys; `colours` is what option `img2img_color_correction` takes them from in place of the
        init images. Raises `SDAPIError`, `TaskCancelled` when the task was cancelled before it
        began.
        """
        ...

    async def upscale(self, image: Image, upscaler: Upscaler, factor: float) -> Image:
        """A picture enlarged by the rules of `extra-single-image`; as `generate` otherwise."""
        ...


class SelectableScript(_Described):
    """A script that a request chooses with `script_name`; it draws through `run.generate`."""

    async def run(self, run: ScriptRun, args: Any) -> ScriptResult:
        """Draw what the request asks for. Heavy work belongs in `anyio.to_thread.run_sync`.

        Raises `SDAPIError` for the client's mistakes.
        """
        raise NotImplementedError
