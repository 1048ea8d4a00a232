"""Prompts from file or textbox: one generation for each line (contract: webui-scripts 7)."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import anyio.to_thread
from pydantic import BaseModel

from sdapi.errors import SDAPIError, UnknownName
from sdapi.extensions.scripts.selectable.composite import check_pictures
from sdapi.schemas.coercion import Bool, Str
from sdapi.services.catalog.catalog import Catalog
from sdapi.services.generation.drafting.seeds import random_seed
from sdapi.services.generation.telling.generation_info import GenerationInfo
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import (
    GenerationRequest,
    ScriptPicture,
    ScriptResult,
    ScriptRun,
    SelectableScript,
)

_PREFIX: Final = "--"
#: options that take all words up to the next one
_TEXTS: Final = ("prompt", "negative_prompt")


def _flag(text: str) -> bool:
    return text == "true"


_FIELDS: Final[Mapping[str, Callable[[str], Any]]] = {
    "outpath_samples": str,
    "outpath_grids": str,
    "prompt_for_display": str,
    "styles": lambda text: [text],
    "sampler_name": str,
    **dict.fromkeys(("seed", "subseed", "seed_resize_from_h", "seed_resize_from_w"), int),
    **dict.fromkeys(("sampler_index", "batch_size", "n_iter", "steps", "width", "height"), int),
    **dict.fromkeys(("subseed_strength", "cfg_scale"), float),
    **dict.fromkeys(("restore_faces", "tiling", "do_not_save_samples", "do_not_save_grid"), _flag),
    "sd_model": str,
}
#: what acts through an option, and what does not act at all
_NO_FIELDS: Final = ("outpath_samples", "outpath_grids", "prompt_for_display", "sampler_index")


class PromptsFromTextArgs(BaseModel):
    """As the webui's."""

    iterate_seed: Annotated[Bool, Arg("Iterate seed every line")] = False
    same_seed: Annotated[Bool, Arg("Use same random seed for all lines")] = False
    place: Annotated[
        Literal["start", "end"], Arg("Insert prompts at the", choices=["start", "end"])
    ] = "start"
    lines: Annotated[Str, Arg("List of prompt inputs")] = ""


@dataclass(frozen=True, slots=True)
class Line:
    """What one line asks for: fields of a request, and options."""

    fields: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict[str, Any])


class PromptsFromText(SelectableScript):
    """One generation for each line."""

    name = "Prompts from file or textbox"
    args = PromptsFromTextArgs

    async def run(self, run: ScriptRun, args: PromptsFromTextArgs) -> ScriptResult:
        asked = run.request
        texts, lines = await anyio.to_thread.run_sync(_read_lines, run, args.lines)
        if (args.iterate_seed or args.same_seed) and asked.seed in (None, -1):
            asked = asked.model_copy(update={"seed": random_seed()})
        seed = -1 if asked.seed is None else asked.seed
        requests = [_request(asked, line, args) for line in lines]
        await _check(run, texts, requests)
        outline = await run.outline(asked)
        run.plan(sum(request.n_iter or 1 for request in requests))
        pictures: list[ScriptPicture] = []
        infos: list[GenerationInfo] = []
        for line, request in zip(lines, requests, strict=True):
            if run.is_interrupted:
                break
            of_line = request.model_copy(update={"seed": line.fields.get("seed", seed)})
            generated = await run.generate(of_line)
            infos.append(generated.info)
            pictures += generated.pictures
            if args.iterate_seed:
                seed += (asked.batch_size or 1) * (asked.n_iter or 1)
        return ScriptResult(
            pictures,
            [each.infotext for each in pictures if not each.is_extra],
            outline,
            _changes(asked, seed, infos),
        )


def parse_command(text: str) -> dict[str, Any]:
    """The fields of a line of `--option value` words; raises `ValueError` that says what is wrong.

    >>> parse_command("--prompt a cat --steps 5")
    {'prompt': 'a cat', 'steps': 5}
    """
    words, found = shlex.split(text), dict[str, Any]()
    place = 0
    while place < len(words):
        word = words[place]
        if not word.startswith(_PREFIX):
            raise ValueError(f'must start with "--": {word}')
        name = word.removeprefix(_PREFIX)
        if name not in _TEXTS and name not in _FIELDS:
            raise ValueError(f"unknown commandline option: {word}")
        if place + 1 == len(words):
            raise ValueError(f"missing argument for command line option {word}")
        end = place + 2
        if name in _TEXTS:
            while end < len(words) and not words[end].startswith(_PREFIX):
                end += 1
            found[name] = " ".join(words[place + 1 : end])
        else:
            found[name] = _FIELDS[name](words[place + 1])
        place = end
    return found


def _read_lines(run: ScriptRun, text: str) -> tuple[list[str], list[Line]]:
    """The lines that are not empty, and what they ask for. Blocks."""
    texts = [line.strip() for line in text.splitlines() if line.strip()]
    check_pictures(len(texts))
    return texts, [_read_line(line, run) for line in texts]


def _read_line(text: str, run: ScriptRun) -> Line:
    """What a line asks for; one that is no command is a prompt."""
    if _PREFIX not in text:
        return Line({"prompt": text})
    try:
        fields = parse_command(text)
        return _line(fields, run.kind, run.services.catalog)
    except (ValueError, UnknownName) as error:
        reason = error.detail if isinstance(error, UnknownName) else error
        run.warn(f"the line {text[:200]!r} is taken for a prompt: {reason}")
        return Line({"prompt": text})


def _line(fields: dict[str, Any], kind: str, catalog: Catalog) -> Line:
    options: dict[str, Any] = {}
    if (name := fields.pop("sd_model", None)) is not None:
        options["sd_model_checkpoint"] = catalog.closest_checkpoint(name).title
    for key in ("samples", "grids"):
        if (folder := fields.get(f"outpath_{key}")) is not None:
            options[f"outdir_{kind}_{key}"] = folder
    return Line({key: v for key, v in fields.items() if key not in _NO_FIELDS}, options)


def _request(asked: GenerationRequest, line: Line, args: PromptsFromTextArgs) -> GenerationRequest:
    """A copy of the request with a line's values; texts of both are joined."""
    update = dict(line.fields)
    for name in _TEXTS:
        own, given = getattr(asked, name), update.get(name)
        if own and given:
            update[name] = f"{given} {own}" if args.place == "start" else f"{own} {given}"
    if line.options:
        update["override_settings"] = (asked.override_settings or {}) | line.options
    return asked.model_copy(update=update)


async def _check(run: ScriptRun, texts: list[str], requests: list[GenerationRequest]) -> None:
    """Refuse a line that no job could be made of, before anything is drawn."""
    for number, (text, request) in enumerate(zip(texts, requests, strict=True), start=1):
        try:
            await run.check(request)
        except SDAPIError as error:
            place = f"script_args, line {number}, {text[:100]!r}"
            raise type(error)(f"{place}: {error.detail}") from error
    check_pictures(sum((each.batch_size or 1) * (each.n_iter or 1) for each in requests))


def _changes(asked: GenerationRequest, seed: int, infos: list[GenerationInfo]) -> dict[str, Any]:
    """`info` is that of the request itself, as if it had not been drawn."""
    prompts = [prompt for info in infos for prompt in info.job.prompts] or [asked.prompt]
    return {
        "prompt": prompts[0],
        "all_prompts": prompts,
        "negative_prompt": asked.negative_prompt,
        "all_negative_prompts": [asked.negative_prompt],
        **{"seed": seed, "all_seeds": [seed], "subseed": -1, "all_subseeds": [-1]},
        "restore_faces": asked.restore_faces,
        "face_restoration_model": None,
        **dict.fromkeys(("sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash")),
        **({"extra_generation_params": infos[-1].extra} if infos else {}),
    }
