"""What a caption names, read back from its words: the lesson of the text encoder's first stage."""

import re
from collections.abc import Mapping

from tools.demo_model.pictures.objects import FLATS, SOLIDS
from tools.demo_model.pictures.palette import EYES, HAIR, PLAIN, SKIN

UNNAMED = ""
_SUBJECTS = ("woman|lady|female", "man|guy|male", "girl", "boy", "child", "person")
_THINGS = ("ball|sphere", *(shape for shape in (*SOLIDS, *FLATS) if shape != "ball"))
_THING = f"(?:{'|'.join(_THINGS)})"
_CLOTHES = "(?:shirt|t-shirt|sweater|top)"

# Attribute -> value -> pattern of the words that name it.
_WORDS: Mapping[str, Mapping[str, str]] = {
    "kind": {words: f"(?:{words})" for words in _SUBJECTS},
    "hair": {name: f"{name} hair" for name in HAIR},
    "length": {
        "bald": "bald",
        **{name: rf"{name} \w+ hair" for name in ("short", "shoulder-length", "long")},
    },
    "skin": {name: f"{name} skin" for name in SKIN},
    "eyes": {name: f"{name} eyes" for name in EYES},
    "beard": {"beard": "beard"},
    "glasses": {"glasses": "glasses"},
    "smile": {"smiling": "(?:smile|smiling)"},
    "framing": {"close-up": "close-up", "upper body": "(?:upper body|half-length)"},
    "shirt": {name: f"{name} {_CLOTHES}" for name in PLAIN},
    "shape": {words: f"(?:{words})" for words in _THINGS},
    "colour": {name: f"{name} {_THING}" for name in PLAIN},
    "size": {name: rf"{name} (?:\w+ )?{_THING}" for name in ("small", "big")},
    "background": {name: f"{name} background" for name in PLAIN},
}
VALUES: Mapping[str, tuple[str, ...]] = {
    attribute: (UNNAMED, *values) for attribute, values in _WORDS.items()
}


def named_attributes(caption: str) -> Mapping[str, str]:
    """For every attribute one of its VALUES."""
    return {
        attribute: next(
            (value for value, words in values.items() if re.search(rf"\b{words}\b", caption)),
            UNNAMED,
        )
        for attribute, values in _WORDS.items()
    }
