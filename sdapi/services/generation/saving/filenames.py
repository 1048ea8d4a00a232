"""Names of saved pictures: patterns, sanitising, numbers, folders.

`[seed]-[prompt_spaces]` and the like are expanded from a `NameContext`. A pattern that means
nothing for the picture at hand (the place in a batch of one, say) also drops the text before it,
so that no separators are left over; an unknown one stays as it is written.
"""

import hashlib
import os
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from sdapi.options import Options
from sdapi.services.storage import numbering as numbers
from sdapi.services.storage.numbering import Numbering

#: bytes of a name without number and ending; file systems take 255 in all
MAX_NAME_BYTES: Final = 220
#: characters that a part of a name may have at most (`--filenames-max-length`)
MAX_PART_LENGTH: Final = 128

_FORBIDDEN: Final = re.compile('[#<>:"/\\\\|?*\n\r\t\0\ud800-\udfff]')
_PATTERN: Final = re.compile(r"(.*?)(?:\[([^\[\]<>]+)((?:<[^<>]*>)*)\]|$)", re.DOTALL)
_ARGUMENT: Final = re.compile(r"<([^<>]*)>")
_NOT_A_WORD: Final = re.compile(rf"[\s{re.escape(string.punctuation)}]+")


@dataclass(frozen=True, slots=True)
class NameContext:
    """What the names of one picture may tell."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    seeds: Sequence[int] = ()
    steps: int = 0
    cfg_scale: float = 0.0
    width: int = 0
    height: int = 0
    styles: Sequence[str] = ()
    #: the texts that those styles put into the prompt
    style_prompts: Sequence[str] = ()
    sampler: str = ""
    #: the scheduler's label
    scheduler: str = "Automatic"
    model_name: str = ""
    model_hash: str = ""
    #: file name of the external VAE; None with the checkpoint's own
    vae_filename: str | None = None
    clip_skip: int = 1
    denoising_strength: float | None = None
    batch_size: int = 1
    n_iter: int = 1
    #: from 0: the iteration, and the picture in its batch
    iteration: int = 0
    batch_index: int = 0
    user: str | None = None
    #: when the job started, YYYYMMDDHHMMSS
    job_timestamp: str = ""
    #: the file that a picture was made from
    basename: str = ""
    now: datetime = field(default_factory=datetime.now)
    #: the picture's pixels, read only where [image_hash] is asked for
    image_bytes: Callable[[], bytes] | None = None


class _Skip:
    """The result of a pattern that also drops the text before it."""


_SKIP: Final = _Skip()
_Value = str | int | float | _Skip | None


def sanitize(text: str, *, replace_spaces: bool = True) -> str:
    """A text as a part of a file name: no forbidden characters, not too long, no dot at the end."""
    if replace_spaces:
        text = text.replace(" ", "_")
    text = _FORBIDDEN.sub("_", text).lstrip(" ")[:MAX_PART_LENGTH]
    return text.rstrip(" .")


def expand(pattern: str, context: NameContext, options: Options) -> str:
    """A file name pattern with everything filled in. Only what is filled in is sanitised.

    >>> expand("[seed]x", NameContext(seed=1), Options.defaults())
    '1x'
    """
    result = ""
    for match in _PATTERN.finditer(pattern):
        before, name, arguments = match.groups()
        if name is None:
            result += before
            continue
        value = _value(name.lower(), _ARGUMENT.findall(arguments), context, options)
        if isinstance(value, _Skip):
            continue
        result += before + (f"[{name}{arguments}]" if value is None else str(value))
    return result


def subfolder(context: NameContext, options: Options) -> Path:
    """The folder that `directories_filename_pattern` gives; it cannot lead out of its parent."""
    text = expand(options.text("directories_filename_pattern"), context, options)
    parts = [fit(part.strip(" ").replace("\0", "_")) for part in re.split(r"[/\\]", text)]
    return Path(*(part for part in parts if part not in ("", ".", "..")))


def output_directory(root: Path, context: NameContext, options: Options, *, is_grid: bool) -> Path:
    """Where a picture goes below `root`, an output folder."""
    wanted = options.flag("grid_save_to_dirs" if is_grid else "save_to_dirs")
    return root / subfolder(context, options) if wanted else root


def decoration(context: NameContext, options: Options, *, is_grid: bool = False) -> str:
    """What follows the number in a name; grids have it only with `grid_extended_filename`."""
    if is_grid and not options.flag("grid_extended_filename"):
        return ""
    in_folders = options.flag("save_to_dirs")
    usual = "[seed]" if in_folders else "[seed]-[prompt_spaces]"
    text = expand(options.text("samples_filename_pattern") or usual, context, options)
    # what stands in the pattern itself is not sanitised, but it may not name another folder
    return re.sub(r"[/\\\0]", "_", text)


def fit(name: str) -> str:
    """A name cut to what file systems take, which count bytes, with room for an ending."""
    return name.encode("utf-8", "replace")[:MAX_NAME_BYTES].decode(errors="ignore")


def next_number(directory: Path, before: str = "", beside: Iterable[str] = ()) -> int:
    """One more than the highest number that a name in the folder has behind `before`.

    The first is 0. Folders count as well, as in the reference: beside `2024-07-27/` the next is
    2025. `beside` are more names that count.
    """
    with os.scandir(directory) as entries:
        return numbers.next_number(chain((entry.name for entry in entries), beside), before)


def numbering(prefix: str, decoration: str, after: str) -> Numbering:
    """`00007-1234.png`, or with a prefix, as grids have, `grid-0007.png`.

    `after` is what follows the decoration, with the ending.
    """
    tail = f"-{decoration}{after}" if decoration else after
    return Numbering(f"{prefix}-", 4, tail) if prefix else Numbering("", 5, tail)


def _value(name: str, arguments: list[str], context: NameContext, options: Options) -> _Value:
    if name in _WITH_ARGUMENTS:
        return _WITH_ARGUMENTS[name](context, arguments)
    if name == "prompt_words":
        return _prompt_words(context, options.integer("directories_max_prompt_words"))
    return _PLAIN[name](context) if name in _PLAIN else None


def _hash(text: str, arguments: list[str]) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[: _length(arguments)]


def _length(arguments: list[str]) -> int | None:
    """The length an argument asks for: 8 without one, the whole with a bad one."""
    if not arguments or not arguments[0]:
        return 8
    return int(arguments[0]) if arguments[0].isdecimal() else None


def _image_hash(context: NameContext, arguments: list[str]) -> _Value:
    if context.image_bytes is None:
        return None
    length = _length(arguments) if arguments else None
    return hashlib.sha256(context.image_bytes()).hexdigest()[:length]


def _datetime(context: NameContext, arguments: list[str]) -> str:
    """`[datetime<format><time zone>]`; bad ones are as if they were not there."""
    form, zone, *_ = [*arguments, "", ""]
    moment = context.now
    with suppress(KeyError, ValueError, OSError):
        moment = moment.astimezone(ZoneInfo(zone)) if zone else moment
    usual = "%Y%m%d%H%M%S"
    try:
        text = moment.strftime(form or usual)
    except ValueError:
        text = moment.strftime(usual)
    return sanitize(text, replace_spaces=False)


def _has_prompt(context: NameContext, arguments: list[str]) -> str:
    """`[hasprompt<text|else>…]`: each text that the prompt has, or what stands for it."""
    prompt = context.prompt.lower()
    words: list[str] = []
    for argument in arguments:
        text, _, otherwise = argument.partition("|")
        words.append(text if text.lower() in prompt else otherwise)
    return sanitize("".join(words), replace_spaces=False)


def _prompt_words(context: NameContext, count: int) -> str:
    words = [word for word in _NOT_A_WORD.split(context.prompt) if word] or ["empty"]
    return sanitize(" ".join(words[:count]), replace_spaces=False)


def _prompt_no_styles(context: NameContext) -> str:
    """The prompt without the texts of its styles, as far as they stand in it in one piece."""
    prompt = context.prompt
    for text in context.style_prompts:
        for part in text.split("{prompt}"):
            prompt = prompt.replace(part, "")
    prompt = prompt.replace(", ,", ",").strip().strip(",").strip()
    return sanitize(prompt, replace_spaces=False)


def _generation_number(context: NameContext) -> _Value:
    if context.batch_size * context.n_iter == 1:
        return _SKIP
    return context.iteration * context.batch_size + context.batch_index + 1


def _seed_at(index: int) -> Callable[[NameContext], _Value]:
    return lambda context: context.seeds[index] if context.seeds else context.seed


def _clean(text: str) -> str:
    return sanitize(text, replace_spaces=False)


_WITH_ARGUMENTS: Final[Mapping[str, Callable[[NameContext, list[str]], _Value]]] = {
    "prompt_hash": lambda c, a: _hash(c.prompt, a),
    "negative_prompt_hash": lambda c, a: _hash(c.negative_prompt, a),
    "full_prompt_hash": lambda c, a: _hash(f"{c.prompt} {c.negative_prompt}", a),
    "image_hash": _image_hash,
    "datetime": _datetime,
    "hasprompt": _has_prompt,
}

_PLAIN: Final[Mapping[str, Callable[[NameContext], _Value]]] = {
    "basename": lambda c: c.basename or "img",
    "seed": lambda c: "" if c.seed is None else c.seed,
    "seed_first": _seed_at(0),
    "seed_last": _seed_at(-1),
    "steps": lambda c: c.steps,
    "cfg": lambda c: c.cfg_scale,
    "width": lambda c: c.width,
    "height": lambda c: c.height,
    "styles": lambda c: _clean(", ".join(s for s in c.styles if s != "None") or "None"),
    "sampler": lambda c: _clean(c.sampler),
    "scheduler": lambda c: _clean(c.scheduler),
    "sampler_scheduler": lambda c: _clean(f"{c.sampler} {c.scheduler}"),
    "model_hash": lambda c: c.model_hash,
    "model_name": lambda c: _clean(c.model_name),
    "date": lambda c: c.now.strftime("%Y-%m-%d"),
    "job_timestamp": lambda c: c.job_timestamp or c.now.strftime("%Y%m%d%H%M%S"),
    "prompt": lambda c: sanitize(c.prompt),
    "prompt_spaces": lambda c: _clean(c.prompt),
    "prompt_no_styles": _prompt_no_styles,
    "batch_number": lambda c: _SKIP if c.batch_size == 1 else c.batch_index + 1,
    "batch_size": lambda c: c.batch_size,
    "generation_number": _generation_number,
    "clip_skip": lambda c: c.clip_skip,
    "denoising": lambda c: _SKIP if not c.denoising_strength else c.denoising_strength,
    "user": lambda c: None if c.user is None else _clean(c.user),
    # the reference's spelling of "no external VAE"
    "vae_filename": lambda c: "NoneType" if c.vae_filename is None else _clean(c.vae_filename),
    "none": lambda _: "",
}
