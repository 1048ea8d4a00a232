"""Which files a job's prompts mean by their network tags, and what infotext tells of them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread

from sdapi.engine.networks.selection import NetworkFiles, check_tag, is_lora, network_tags
from sdapi.engine.text.grammar.composition import NetworkTag
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import (
    BadRequest,
    BadUrl,
    ModelUnusable,
    SDAPIError,
    UnknownName,
    near_names,
)
from sdapi.options import Options
from sdapi.services.catalog.networks import SHORT_HASH, Lora, NetworkCatalog
from sdapi.services.catalog.object_models import FetchedModels

#: names of infotext keys, and of the option that makes a missing network an error
LORA_HASHES, TI_HASHES = "Lora hashes", "TI hashes"
STRICT = "sdapi_strict_networks"
_NONE = ("None", "")
_LORA_NAME = re.compile(r"<lora:([^:>]+):")


@dataclass(frozen=True, slots=True)
class ResolvedNetworks:
    """The files of a job's networks, and what is wrong with its tags."""

    files: NetworkFiles = field(default_factory=NetworkFiles)
    #: by the names that tags have
    loras: Mapping[str, Lora] = field(default_factory=dict[str, Lora])
    warnings: tuple[str, ...] = ()


def with_default_networks(prompt: str, catalog: NetworkCatalog, options: Options) -> str:
    """The prompt with the tags that options `sd_hypernetwork` and `sd_lora` add to every one."""
    used = {(is_lora(tag), tag.args[0]) for tag in network_tags(prompt) if tag.args}
    multiplier = options["extra_networks_default_multiplier"]
    for _, kind, name, is_there in _default_networks(catalog, options):
        if is_there and (kind == "lora", name) not in used:
            prompt += f"<{kind}:{name}:{multiplier}>"
    return prompt


def _default_networks(
    catalog: NetworkCatalog, options: Options
) -> Iterator[tuple[str, str, str, bool]]:
    """Option, kind of tag and name of each network that options name, and whether it is there."""
    name = options.text("sd_hypernetwork")
    if name not in _NONE:
        yield "sd_hypernetwork", "hypernet", name, catalog.hypernetwork(name) is not None
    name = options.text("sd_lora")
    if name not in _NONE:
        yield "sd_lora", "lora", name, catalog.has_base_name(name)


def resolve_networks(
    prompts: Iterable[str],
    catalog: NetworkCatalog,
    options: Options,
    objects: FetchedModels | None = None,
    *,
    are_disabled: bool,
) -> ResolvedNetworks:
    """Look up the networks that prompts and options name; raises `NotFetched` for an object's URL.

    What is not there, or cannot be read, is a warning; with option `sdapi_strict_networks` it
    raises what is wrong.
    """
    strict, embeddings = options.flag(STRICT), catalog.embeddings()
    if are_disabled:
        return ResolvedNetworks(NetworkFiles(embeddings=embeddings, is_strict=strict))
    search = _Search(catalog, strict, objects)
    search.check_defaults(options)
    for prompt in dict.fromkeys(prompts):
        for tag in network_tags(prompt):
            search.add(tag)
    files = NetworkFiles(
        search.lora_files,
        search.hypernets,
        embeddings,
        strict,
        tells_bundled=options.flag("lora_bundled_ti_to_infotext"),
    )
    return ResolvedNetworks(files, search.loras, tuple(search.warnings))


@dataclass(slots=True)
class _Search:
    catalog: NetworkCatalog
    is_strict: bool
    objects: FetchedModels | None = None
    loras: dict[str, Lora] = field(default_factory=dict[str, Lora])
    lora_files: dict[str, ModelFile] = field(default_factory=dict[str, ModelFile])
    hypernets: dict[str, ModelFile] = field(default_factory=dict[str, ModelFile])
    warnings: dict[str, None] = field(default_factory=dict[str, None])

    def add(self, tag: NetworkTag) -> None:
        """Find the file of a tag, and whether the tag can be read."""
        try:
            check_tag(tag)
        except BadRequest as error:
            kind = "LoRA" if is_lora(tag) else "hypernetwork"
            self._refuse(BadRequest(f"prompt: {error}"), f"{error}; no {kind} was used")
            return
        name = tag.args[0]
        try:
            is_there = self._add_lora(name) if is_lora(tag) else self._add_hypernet(name)
        except (BadUrl, ModelUnusable) as error:  # what may not be read is an error
            self._refuse(error, f"{tag.kind} not used: {error.detail}")
            return
        if not is_there:
            self._tell_missing(tag.kind, name, is_lora=is_lora(tag))

    def check_defaults(self, options: Options) -> None:
        """Tell what `with_default_networks` had to leave out."""
        for option, kind, name, is_there in _default_networks(self.catalog, options):
            if not is_there:
                self._tell_missing(kind, name, is_lora=kind == "lora", place=f"{option}: ")

    def _tell_missing(self, kind: str, name: str, *, is_lora: bool, place: str = "") -> None:
        known = [lora.name for lora in self.catalog.loras]
        names = known if is_lora else list(self.catalog.hypernetworks)
        warning = f"{kind} not found: {name}"
        near = near_names(name, names)
        self._refuse(UnknownName(f"{place}{warning}; there are {near}"), warning)

    def _refuse(self, error: SDAPIError, warning: str) -> None:
        if self.is_strict:
            raise error
        self.warnings[warning] = None

    def _add_lora(self, name: str) -> bool:
        """Whether there is one; raises `BadUrl` or `ModelUnusable` where it cannot be had."""
        lora = self.catalog.lora(name, self.objects)
        if lora is not None:
            self.lora_files[name] = ModelFile.usable(lora.path)
            self.loras[name] = lora
        return lora is not None

    def _add_hypernet(self, name: str) -> bool:
        path = self.catalog.hypernetwork(name)
        if path is not None:
            self.hypernets[name] = ModelFile.usable(path)
        return path is not None


async def told_hashes(
    extra: dict[str, Any],
    loras: Mapping[str, Lora],
    catalog: NetworkCatalog,
    options: Options,
    timeout_s: float,
) -> dict[str, Any]:
    """Infotext keys with hashes where the engine left the names of the LoRAs it used.

    `timeout_s` 0 tells only of hashes that are known. A key goes when there is nothing to tell, or
    an option says not to.
    """
    if not options.flag("textual_inversion_add_hashes_to_infotext"):
        extra = {key: value for key, value in extra.items() if key != TI_HASHES}
    if LORA_HASHES not in extra:
        return extra
    hashes: list[str] = []
    for name in extra[LORA_HASHES] if options.flag("lora_add_hashes_to_infotext") else ():
        known = await anyio.to_thread.run_sync(catalog.shorthash, loras[name])
        if known is None and timeout_s > 0:
            computed = await catalog.hashes.wait(loras[name].path, timeout_s)
            known = computed[:SHORT_HASH] if computed else None
        if known is not None:
            hashes.append(f"{name.replace(':', '').replace(',', '')}: {known}")
    told = extra | {LORA_HASHES: ", ".join(hashes)}
    return told if hashes else {key: value for key, value in told.items() if key != LORA_HASHES}


def with_local_names(
    parsed: dict[str, object], catalog: NetworkCatalog, options: Options
) -> dict[str, object]:
    """An infotext's fields with the LoRAs of its prompt called as the same files are here."""
    told, prompt = parsed.get(LORA_HASHES), parsed.get("Prompt")
    if not isinstance(told, str) or not isinstance(prompt, str):
        return parsed
    hashes = dict(_pair(entry) for entry in told.split(","))
    by_hash = {catalog.shorthash(lora): lora for lora in catalog.loras}

    def local(match: re.Match[str]) -> str:
        lora = by_hash.get(hashes.get(match[1], ""))
        if lora is None:
            return match[0]
        return f"<lora:{catalog.preferred_name(lora, options.text('lora_preferred_name'))}:"

    return parsed | {"Prompt": _LORA_NAME.sub(local, prompt)}


def _pair(entry: str) -> tuple[str, str]:
    name, _, shorthash = entry.partition(":")
    return name.strip(), shorthash.strip()
