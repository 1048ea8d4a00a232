"""Prompts in compel's grammar, with limits on what one may ask (option `prompt_attention`).

What differs from the package: `.swap()` and `.withLora()` are refused, for nothing here would act
on them.
"""

import math
from functools import cache
from typing import Any

from sdapi.errors import BadRequest

_MAX_LENGTH = 4000
_MAX_NESTING = 10
_MAX_FRAGMENTS = 200
_MAX_WEIGHT = 1e4


@cache
def _parser() -> Any:
    """The package's parser; made on first use, for importing it takes seconds."""
    import pyparsing

    # Without it a handful of nested brackets takes minutes.
    pyparsing.ParserElement.enable_packrat()
    from compel.prompt_parser import PromptParser

    return PromptParser()


def parse(text: str) -> Any:
    """A prompt as compel's `Conjunction`; raises `BadRequest` for one that cannot be encoded."""
    if len(text) > _MAX_LENGTH:
        raise BadRequest(f"prompt: compel takes at most {_MAX_LENGTH} characters, not {len(text)}")
    if _nesting(text) > _MAX_NESTING:
        raise BadRequest(f"prompt: compel takes at most {_MAX_NESTING} nested brackets")
    try:
        conjunction = _parser().parse_conjunction(text)
    except Exception as error:  # the grammar and its actions raise almost anything
        raise BadRequest(f"prompt: compel cannot read it: {error}") from error
    _check(conjunction)
    return conjunction


def _nesting(text: str) -> int:
    depth = deepest = 0
    for sign in text:
        depth = max(depth + (sign == "(") - (sign == ")"), 0)
        deepest = max(deepest, depth)
    return deepest


def _check(conjunction: Any) -> None:
    if conjunction.type != "AND":
        raise BadRequest("prompt: compel joins prompts by .and() only")
    if conjunction.lora_weights:
        raise BadRequest("prompt: compel's .withLora() is not supported; use <lora:name:weight>")
    weights = list(conjunction.weights)
    fragments = 0
    for prompt in conjunction.prompts:
        weights += getattr(prompt, "weights", [])
        for part in getattr(prompt, "prompts", [prompt]):
            if part.wants_cross_attention_control:
                raise BadRequest("prompt: compel's .swap() is not supported")
            weights += [child.weight for child in part.children]
            fragments += len(part.children)
    if fragments > _MAX_FRAGMENTS:
        raise BadRequest(f"prompt: {fragments} weighted parts; at most {_MAX_FRAGMENTS}")
    for weight in weights:
        if not math.isfinite(weight) or abs(weight) > _MAX_WEIGHT:
            raise BadRequest(f"prompt: the weight {weight} is out of range; at most {_MAX_WEIGHT}")
