"""`AND` composition and extra-network tags: what leaves a prompt before it is scheduled."""

import re
from dataclasses import dataclass

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"^((?:.|\n)*?)(?:\s*:\s*([-+]?(?:\d+\.?\d*|\.\d+)))?\s*$")
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
    """Split at the word AND; a trailing `: number` of a part is its weight (contract: 2.4)."""
    parts: list[WeightedText] = []
    for part in _AND.split(prompt):
        match = _WEIGHT.match(part)
        text, weight = (match[1], match[2]) if match else (part, None)
        parts.append(WeightedText(text, float(weight) if weight is not None else 1.0))
    return parts


def extract_tags(prompt: str) -> tuple[str, list[NetworkTag]]:
    """Remove every `<kind:…>` tag; return the rest and the tags in order (contract: 2.3)."""
    tags: list[NetworkTag] = []
    for kind, body in _TAG.findall(prompt):
        items = str(body).split(":")
        named = tuple((k, v) for k, v in (i.split("=") for i in items if i.count("=") == 1))
        tags.append(NetworkTag(kind, tuple(i for i in items if i.count("=") != 1), named))
    return _TAG.sub("", prompt), tags


def strip_comments(prompt: str) -> str:
    """Remove `#` comments: whole lines with one newline left, then line tails (contract: 2.2)."""
    return _COMMENT_TAIL.sub("\n", _COMMENT_LINE.sub("\n", prompt))
