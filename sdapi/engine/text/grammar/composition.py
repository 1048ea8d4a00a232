"""`AND` composition and extra-network tags: what leaves a prompt before it is scheduled."""

import re
from dataclasses import dataclass

from sdapi.errors import BadRequest
from sdapi.object_url import SCHEMES

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_MAX_WEIGHT = 1e6
_MAX_PARTS = 100
_TAG = re.compile(r"<(\w+):([^>]+)>", re.ASCII)
_COMMENT_LINE = re.compile(r"(^|\n)#[^\n]*(\n|$)")
_COMMENT_TAIL = re.compile(r"#[^\n]*(\n|$)")


@dataclass(frozen=True, slots=True)
class WeightedText:
    """One part of an AND composition."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class NetworkTag:
    """`<kind:arg:arg:name=arg>` as written in a prompt."""

    kind: str
    args: tuple[str, ...]
    named: tuple[tuple[str, str], ...] = ()


def split_and(prompt: str) -> list[WeightedText]:
    """Split at the word AND; a trailing `: number` of a part is its weight (contract: 2.4).

    Raises `BadRequest` for a weight that no arithmetic survives, or more than a hundred parts.
    """
    parts = [_weighted(part) for part in _AND.split(prompt)]
    if len(parts) > _MAX_PARTS:
        raise BadRequest(f"prompt: {len(parts)} parts are joined by AND; at most {_MAX_PARTS}")
    return parts


def _weighted(part: str) -> WeightedText:
    part = part.rstrip()
    text, _, number = part.rpartition(":")
    if not _WEIGHT.fullmatch(number.strip()) or ":" not in part:
        return WeightedText(part, 1.0)
    weight = float(number)
    if abs(weight) > _MAX_WEIGHT:
        raise BadRequest(f"prompt: the weight {weight:g} is out of range; at most {_MAX_WEIGHT:g}")
    return WeightedText(text.rstrip(), weight)


def extract_tags(prompt: str) -> tuple[str, list[NetworkTag]]:
    """Remove every `<kind:…>` tag; return the rest and the tags in order (contract: 2.3)."""
    tags: list[NetworkTag] = []
    # Behind the last ">" no tag can end; looking for one there costs time for every "<".
    end = prompt.rfind(">") + 1
    for kind, body in _TAG.findall(prompt[:end]):
        items = _items(str(body))
        named = tuple((k, v) for k, v in (i.split("=") for i in items if i.count("=") == 1))
        tags.append(NetworkTag(kind, tuple(i for i in items if i.count("=") != 1), named))
    return _TAG.sub("", prompt[:end]) + prompt[end:], tags


def _items(body: str) -> list[str]:
    """The arguments of a tag; the colon of an object's URL, which comes first, divides nothing."""
    items = body.split(":")
    if len(items) > 1 and items[1].startswith("//") and items[0] in SCHEMES:
        items[:2] = [f"{items[0]}:{items[1]}"]
    return items


def strip_comments(prompt: str) -> str:
    """Remove `#` comments: whole lines with one newline left, then line tails (contract: 2.2)."""
    return _COMMENT_TAIL.sub("\n", _COMMENT_LINE.sub("\n", prompt))
