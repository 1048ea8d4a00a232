"""Texts of callers that become prompts. They can name no networks, which may be other people's."""

import re
from typing import Final

_TAG: Final = re.compile(r"<\s*\w+\s*:[^<>]*>")
_SIGNS: Final = re.compile(r"[<>#]")
#: what stands between the words of a prompt
_BETWEEN: Final = " \t\r\n,"


def without_tags(text: str) -> str:
    """The text without tags.

    Without their signs, and those of comments, nothing that is cut out later makes one of it.
    """
    return _SIGNS.sub(" ", _TAG.sub("", text))


def says_something(text: str) -> bool:
    """Whether any words are left of a text without its tags."""
    return bool(without_tags(text).strip(_BETWEEN))
