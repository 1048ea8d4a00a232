"""What callers of either surface ask for, read from their bodies.

Raises PortraitError with the fault that the contract names for each mistake.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeGuard, cast
from uuid import UUID

from sdapi.portrait import faults
from sdapi.portrait.faults import Fault, PortraitError
from sdapi.portrait.photos import MAX_PHOTOS
from sdapi.portrait.wire.configure import (
    ConfigureError,
    CreateOptions,
    Surface,
    parse_configure,
    to_bool,
    to_int,
    to_text,
)
from sdapi.portrait.wire.plain_text import says_something

#: models that one creation may name: faces in a group picture
MAX_MODELS: Final = 64
MAX_TRAIN_STEPS: Final = 10_000
#: of SDXL, whose surface has no field for it (contract: portrait-pipeline 2.3)
XL_STEPS: Final = 600
_USER_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
#: in place of a template's URL: make it from text
GENERATED_TEMPLATE: Final = "t2i_generate"
_SCENE_UNUSED: Final = (
    f"scene_id was not used, as there is a template: {GENERATED_TEMPLATE} as template_image,"
    " or a t2i_prompt, draws one of the scene"
)

log = logging.getLogger(__name__)

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """Photos of one person, or of a scene, and how to train on them."""

    urls: tuple[str, ...]
    sex: str = "secret"
    max_train_steps: int = 400
    steps_between_evaluations: int = 50
    is_scene: bool = False
    scene_prompts: tuple[str, ...] = ()
    is_xl: bool = False

    def to_json(self) -> dict[str, Any]:
        """As a job keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainRequest":
        """The inverse of `to_json`, after a way through JSON."""
        lists = {name: tuple(values[name]) for name in ("urls", "scene_prompts")}
        known: dict[str, Any] = {**values, **lists}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A portrait of one or several trained people."""

    #: in the order of the faces, left to right; one empty text where no training is needed
    model_ids: tuple[str, ...]
    is_group: bool
    #: empty where the template is made from text
    template_url: str
    options: CreateOptions
    warnings: tuple[str, ...]
    is_xl: bool = False


def image_urls(body: Body) -> tuple[str, ...]:
    """`images`: one to fifty texts; whether they are URLs shows when they are fetched."""
    urls = body.get("images")
    if urls is None or urls == []:
        raise PortraitError(faults.NO_IMAGES)
    if not _are_texts(urls) or len(urls) > MAX_PHOTOS:
        raise _refused(faults.INVALID_INPUT, f"images must be a list of 1 to {MAX_PHOTOS} URLs")
    return tuple(urls)


def queue_request_id(body: Body, unreadable: Fault) -> str:
    """The caller's own id, as text; raises PortraitError without one."""
    value = body.get("request_id")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise PortraitError(unreadable)
    return str(value)


def same_person_wanted(body: Body) -> bool:
    """`face_reconize` of the queue's check, off by default."""
    try:
        value = _configure(body, faults.INVALID_INPUT).get("face_reconize")
        return value is not None and to_bool("face_reconize", value)
    except ConfigureError as error:
        raise _refused(faults.INVALID_INPUT, error) from error


def queue_train(body: Body) -> tuple[str, TrainRequest]:
    """The user's id and the training of the queue's service."""
    configure = _sent_configure(body, faults.INVALID_INPUT)
    user_id = configure.get("user_id")
    if not isinstance(user_id, str) or not is_user_id(user_id):
        raise _refused(
            faults.INVALID_INPUT,
            f"configure.user_id must be 1 to 128 letters, digits, _, - or ., not {user_id!r:.140}",
        )
    try:
        return user_id, TrainRequest(
            image_urls(body),
            to_text("sex", _or(configure.get("sex"), "secret")),
            _at_least_one("max_train_steps", configure, 400),
            _at_least_one("val_save_checkpointing_steps", configure, 50),
        )
    except ConfigureError as error:
        raise _refused(faults.INVALID_INPUT, error) from error


def rest_train(body: Body, *, is_xl: bool) -> TrainRequest:
    """The training of the REST API; only SDXL has anything to configure."""
    urls = image_urls(body)
    configure = _configure(body, faults.INVALID_INPUT)
    if not is_xl:
        return TrainRequest(urls)
    try:
        wanted = configure.get("train_scene_lora_bool")
        if wanted is None or not to_bool("train_scene_lora_bool", wanted):
            return TrainRequest(urls, max_train_steps=XL_STEPS, is_xl=True)
    except ConfigureError as error:
        raise _refused(faults.INVALID_INPUT, error) from error
    prompts = configure.get("scene_lora_prompts")
    if not _are_texts(prompts) or len(prompts) != len(urls):
        why = "scene_lora_prompts must be a list with a text for each of images"
        raise _refused(faults.INVALID_INPUT, why)
    return TrainRequest(
        urls,
        max_train_steps=XL_STEPS,
        is_scene=True,
        scene_prompts=tuple(prompts),
        is_xl=True,
    )


def queue_create(body: Body) -> CreateRequest:
    """The creation of the queue's service: models go by user id, a list or a comma list."""
    named = _sent_configure(body, faults.INVALID_CREATE).get("user_id")
    options, warnings = _options(body, Surface.QUEUE)
    ids = (named or [""]) if isinstance(named, list) else str(_or(named, "")).split(",")
    ids = [part.strip() if isinstance(part, str) else part for part in ids]
    template = _template(body, options)
    _check_ids(ids, is_user_id, options)
    is_group = len(ids) > 1
    return CreateRequest(tuple(ids), is_group, template, options, warnings)


def rest_create(body: Body, *, is_xl: bool) -> CreateRequest:
    """The creation of the REST API; a non-empty list of models makes it a group's."""
    options, warnings = _options(body, Surface.SDXL if is_xl else Surface.SD15)
    several = _or(body.get("model_ids"), [])
    if not isinstance(several, list):
        raise _refused(faults.INVALID_CREATE, f"model_ids must be a list, not {several!r:.80}")
    ids = several or [_or(body.get("model_id"), "")]
    template = _template(body, options)
    _check_ids(ids, is_model_id, options)
    if options.scene_id and not is_model_id(options.scene_id):
        raise PortraitError(faults.MODEL_ID_MALFORMED)
    if options.scene_id and template:
        warnings += (_SCENE_UNUSED,)
    return CreateRequest(tuple(ids), bool(several), template, options, warnings, is_xl)


def is_user_id(text: str) -> bool:
    """Whether a name can be a user's: no path can be made of it."""
    return bool(_USER_ID.fullmatch(text)) and text.strip(".") != ""


def is_model_id(text: str) -> bool:
    """Whether a text has the form of our model ids, a UUID in lower case with dashes."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _are_texts(value: object) -> TypeGuard[list[str]]:
    """Whether a value is a list of nothing but texts."""
    return isinstance(value, list) and all(
        isinstance(one, str) for one in cast("list[object]", value)
    )


def _configure(body: Body, fault: Fault) -> Mapping[str, Any]:
    """`configure`, empty where there is none."""
    return {} if body.get("configure") is None else _sent_configure(body, fault)


def _sent_configure(body: Body, fault: Fault) -> Mapping[str, Any]:
    """`configure`, where a request needs one."""
    configure = body.get("configure")
    if not isinstance(configure, dict):
        raise _refused(fault, "configure must be an object")
    return cast("dict[str, Any]", configure)


def _refused(fault: Fault, why: object) -> PortraitError:
    """The error for a body; its text is the contract's, so only the log can say what was wrong."""
    log.info("portrait: a request is refused: %s", why)
    return PortraitError(fault)


def _options(body: Body, surface: Surface) -> tuple[CreateOptions, tuple[str, ...]]:
    """The options of a creation; a text of which no words are left counts as not sent."""
    try:
        options, warnings = parse_configure(body.get("configure"), surface)
    except ConfigureError as error:
        raise _refused(faults.INVALID_CREATE, error) from error
    if says_something(options.t2i_prompt):
        return options, warnings
    if options.t2i_prompt.strip():
        warnings += ("t2i_prompt has no words, and was left out",)
    return replace(options, t2i_prompt=""), warnings


def _check_ids(ids: list[Any], is_well_formed: Any, options: CreateOptions) -> None:
    """Without training no id is needed; one that is given has to be right."""
    if options.ipa_control_only and ids == [""]:
        return
    if not _are_texts(ids) or len(ids) > MAX_MODELS:
        why = f"models must be named by at most {MAX_MODELS} texts"
        raise _refused(faults.INVALID_CREATE, why)
    if not all(is_well_formed(one) for one in ids):
        raise PortraitError(faults.MODEL_ID_MALFORMED)


def _template(body: Body, options: CreateOptions) -> str:
    """The template's URL; empty where it is made from text."""
    url = _or(body.get("template_image"), "")
    if not isinstance(url, str):
        raise _refused(faults.INVALID_CREATE, f"template_image must be a URL, not {url!r:.80}")
    if options.t2i_prompt or (url == GENERATED_TEMPLATE and options.scene_id):
        return ""
    if not url or url == GENERATED_TEMPLATE:
        raise PortraitError(faults.NO_TEMPLATE)
    return url


def _at_least_one(name: str, configure: Mapping[str, Any], default: int) -> int:
    number = to_int(name, _or(configure.get(name), default))
    return min(max(number, 1), MAX_TRAIN_STEPS)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
