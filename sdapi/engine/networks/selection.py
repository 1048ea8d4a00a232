"""Which networks a prompt asks for: its tags, looked up among the files that a job brings."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sdapi.engine.text.grammar.composition import NetworkTag, extract_tags
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import BadRequest

_LORA_KINDS = ("lora", "lyco")
_HYPERNET_KIND = "hypernet"
NETWORK_KINDS = (*_LORA_KINDS, _HYPERNET_KIND)
_MAX_MULTIPLIER = 1e5
_WHOLE = re.compile(r"[-+]?\d{1,6}")
Use = TypeVar("Use")


@dataclass(frozen=True, slots=True)
class NetworkFiles:
    """The files that a job's tags and words may mean."""

    #: by the name a tag has
    loras: Mapping[str, ModelFile] = field(default_factory=dict[str, ModelFile])
    hypernets: Mapping[str, ModelFile] = field(default_factory=dict[str, ModelFile])
    #: every embedding there is; later ones win over earlier ones of the same name
    embeddings: tuple[ModelFile, ...] = ()
    #: a network that cannot be used fails the job, instead of being a warning
    is_strict: bool = False
    #: infotext tells which network an embedding came with (`lora_bundled_ti_to_infotext`)
    tells_bundled: bool = True


@dataclass(frozen=True, slots=True)
class LoraUse:
    """A LoRA, or one of its kin, with the strength it is merged with."""

    #: as the tag has it
    name: str
    file: ModelFile
    #: multiplier of the layers of text encoders, and of the UNet's
    te: float = 1.0
    unet: float = 1.0
    #: the rank it is cut down to, None for its own
    dyn: int | None = None


@dataclass(frozen=True, slots=True)
class HypernetUse:
    """A hypernetwork with its strength."""

    name: str
    file: ModelFile
    multiplier: float = 1.0


@dataclass(frozen=True, slots=True)
class NetworkSet:
    """The networks of one pass, in the order of their tags."""

    loras: tuple[LoraUse, ...] = ()
    hypernets: tuple[HypernetUse, ...] = ()


def network_tags(prompt: str) -> list[NetworkTag]:
    """The tags of a prompt that name networks of a known kind."""
    return [tag for tag in extract_tags(prompt)[1] if tag.kind in NETWORK_KINDS]


def is_lora(tag: NetworkTag) -> bool:
    """Whether the tag names a LoRA or one of its kin, else it names a hypernetwork."""
    return tag.kind in _LORA_KINDS


def select(prompt: str, files: NetworkFiles) -> NetworkSet:
    """The networks that a prompt activates (contract: webui-generation 14, webui-scripts 17).

    Names without a file are left out. One tag that cannot be read leaves out all of its kind, as
    in the reference; `check_tag` tells why.
    """
    tags = network_tags(prompt)
    return NetworkSet(
        _all_or_none(lambda tag: _lora(tag, files), [t for t in tags if is_lora(t)]),
        _all_or_none(lambda tag: _hypernet(tag, files), [t for t in tags if not is_lora(t)]),
    )


def check_tag(tag: NetworkTag) -> None:
    """Raise `BadRequest` for a tag without name, or with a strength that is no number."""
    _ = _lora(tag, NetworkFiles()) if is_lora(tag) else _hypernet(tag, NetworkFiles())


def _all_or_none(
    read: Callable[[NetworkTag], Use | None], tags: Sequence[NetworkTag]
) -> tuple[Use, ...]:
    try:
        return tuple(use for use in map(read, tags) if use is not None)
    except BadRequest:
        return ()


def _lora(tag: NetworkTag, files: NetworkFiles) -> LoraUse | None:
    name, *strengths = _arguments(tag)
    named = dict(tag.named)
    te = _multiplier(tag, named.get("te", strengths[0] if strengths else "1"))
    unet = named.get("unet", strengths[1] if len(strengths) > 1 else None)
    dyn = named.get("dyn", strengths[2] if len(strengths) > 2 else None)
    file = files.loras.get(name)
    if dyn is not None and not _WHOLE.fullmatch(dyn.strip()):
        raise BadRequest(f"<{tag.kind}:{name}>: the rank {dyn[:40]!r} is no whole number")
    unet_multiplier = te if unet is None else _multiplier(tag, unet)
    # Rank 0 is "as it is", like none.
    rank = None if dyn is None else int(dyn) or None
    return None if file is None else LoraUse(name, file, te, unet_multiplier, rank)


def _hypernet(tag: NetworkTag, files: NetworkFiles) -> HypernetUse | None:
    name, *strengths = _arguments(tag)
    multiplier = _multiplier(tag, strengths[0] if strengths else "1")
    file = files.hypernets.get(name)
    return None if file is None else HypernetUse(name, file, multiplier)


def _arguments(tag: NetworkTag) -> tuple[str, ...]:
    if not tag.args:
        raise BadRequest(f"<{tag.kind}:…>: the tag names no network")
    return tag.args


def _multiplier(tag: NetworkTag, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _MAX_MULTIPLIER:
        raise BadRequest(
            f"<{tag.kind}:{tag.args[0]}>: the strength {text[:40]!r} is no number that can be used"
        )
    return value
